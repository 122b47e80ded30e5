# requests and httpx with kept-alive connections.
import sys

import httpx
import requests

for session in (requests.Session(), httpx.Client()):
    with session:
        row = session.get(sys.argv[1] + "/customers").json()
        assert (row["name"], row["email"], row["ssn"]) == ("Ada Lovelace", "[EMAIL]", "[SSN]"), row
        assert session.get(sys.argv[1] + "/text").text == "write to [EMAIL]"
        denied = session.get(sys.argv[1] + "/admin/x")
        assert denied.status_code == 403 and denied.json()["error"]["rule"] == "no-admin", denied.text
        sent = session.post(sys.argv[1] + "/echo", json={"to": "ada@example.com"})
        assert sent.status_code == 200, sent.text
        assert len(session.get(sys.argv[1] + "/kilobyte").text) == 1024
print("done")

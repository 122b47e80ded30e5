"""Opens connections at a steady rate, one request each, until its input ends. Prints what became of them as JSON.

usage: dialler.py PORT CONNECTIONS_A_SECOND
"""

import asyncio
import json
import sys
import time

port, rate = int(sys.argv[1]), int(sys.argv[2])
answered, failed, slowest = 0, {}, 0.0


async def ask():
    global answered, slowest
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /kilobyte HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        reply = await reader.read()
        writer.close()
        if not reply.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"answered {reply[:40]!r}")
        answered += 1
    except OSError as fault:
        failed[str(fault)] = failed.get(str(fault), 0) + 1
    slowest = max(slowest, time.monotonic() - began)


async def main():
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    began, asked, running = time.monotonic(), 0, set()
    while not ended.done():
        due = int((time.monotonic() - began) * rate) - asked
        for _ in range(due):
            task = asyncio.create_task(ask())
            running.add(task)
            task.add_done_callback(running.discard)
        asked += due
        await asyncio.sleep(0.005)
    seconds = time.monotonic() - began
    await asyncio.gather(*running)
    print(json.dumps({
        "answered": answered,
        "failed": failed,
        "per_second": round(asked / seconds),
        "slowest_ms": round(slowest * 1000),
    }))


asyncio.run(main())

#!/bin/sh
# A private nginx in DIR: invented customers as JSON, a place to post to, over HTTP on PORT and HTTPS on PORT+1.
# usage: web.sh DIR PORT        make it if need be, start it, print where it is
#        web.sh DIR stop        stop it; DIR stays
# The certificate (DIR/server.pem, its own root) is for localhost, api.lab, 127.0.0.1.
set -eu

dir=${1:?usage: web.sh DIR PORT|stop}
port=${2:?usage: web.sh DIR PORT|stop}
nginx=$(command -v nginx || echo /usr/sbin/nginx)
[ -x "$nginx" ] || { echo "web.sh: no nginx here (apt-get install nginx-light)" >&2; exit 1; }
is_up() { [ -s "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }

if [ "$port" = stop ]; then
    if is_up; then kill -QUIT "$(cat "$dir/pid")"; fi
    exit
fi
case $dir in /*) ;; *) dir=$(pwd)/$dir ;; esac
mkdir -p "$dir/www" "$dir/tmp"

if [ ! -e "$dir/server.pem" ]; then
    (
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=lab web CA" \
            -addext "keyUsage=critical,keyCertSign" -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=api.lab" \
            -keyout "$dir/server.key" -out "$dir/server.csr" 2>/dev/null
        printf '%s\n' "subjectAltName=DNS:localhost,DNS:api.lab,IP:127.0.0.1" "extendedKeyUsage=serverAuth" \
            "authorityKeyIdentifier=keyid" > "$dir/server.ext"
        openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 365 \
            -extfile "$dir/server.ext" -out "$dir/server.pem" 2>/dev/null
        rm -f "$dir/server.csr" "$dir/server.ext"
    )
    chmod 644 "$dir/ca.pem"
fi

cat > "$dir/www/customers.json" <<'JSON'
{"customers": [
  {"id": 1, "name": "Ada Example", "email": "ada@acme.example", "ssn": "900-12-3456", "card": "4111 1111 1111 1111"},
  {"id": 2, "name": "Grace Sample", "email": "grace@acme.example", "ssn": "900-23-4567", "card": "5555 5555 5555 4444"}
]}
JSON
echo 'the lab is up' > "$dir/www/index.txt"

cat > "$dir/nginx.conf" <<CONF
pid $dir/pid;
error_log $dir/error.log;
events { worker_connections 512; }
http {
    # The outside witness: what really arrived, and with which credential.
    log_format witness '\$request \$status authorization="\$http_authorization"';
    access_log $dir/access.log witness;
    client_body_temp_path $dir/tmp/body;
    proxy_temp_path $dir/tmp/proxy;
    fastcgi_temp_path $dir/tmp/fastcgi;
    uwsgi_temp_path $dir/tmp/uwsgi;
    scgi_temp_path $dir/tmp/scgi;
    types { application/json json; text/plain txt; }
    server {
        listen 127.0.0.1:$port;
        listen 127.0.0.1:$((port + 1)) ssl;
        ssl_certificate $dir/server.pem;
        ssl_certificate_key $dir/server.key;
        root $dir/www;
        index index.txt;
        location /private/ { return 200 "only for those whom policy lets through\n"; }
        location /upload { client_max_body_size 64m; return 204; }
    }
}
CONF

is_up || "$nginx" -p "$dir" -c "$dir/nginx.conf" -e "$dir/error.log"
echo "http://127.0.0.1:$port https://127.0.0.1:$((port + 1)) ca=$dir/ca.pem"

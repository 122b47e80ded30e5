#!/bin/sh
# A private PostgreSQL cluster in DIR with SCRAM, TLS of a CA of its own, and sample personal data (all of it invented).
# usage: postgres.sh DIR PORT        make it if need be, start it, print where it is
#        postgres.sh DIR stop        stop it; DIR stays
# Logins: app (DIR/app.pw), postgres (DIR/postgres.pw). CA: DIR/ca.pem; the certificate is for localhost, db.lab, 127.0.0.1, ::1.
set -eu

dir=${1:?usage: postgres.sh DIR PORT|stop}
port=${2:?usage: postgres.sh DIR PORT|stop}
for bin in /usr/lib/postgresql/*/bin; do :; done
[ -x "$bin/initdb" ] || { echo "postgres.sh: no PostgreSQL here (apt-get install postgresql)" >&2; exit 1; }

# PostgreSQL refuses to run as root.
server() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

if [ "$port" = stop ]; then
    server "$bin/pg_ctl" -D "$dir/data" -m fast stop
    exit
fi

secret() {
    [ -s "$1" ] || (umask 077 && openssl rand -hex 16 > "$1")
}

certificates() {
    [ -e "$dir/server.pem" ] && return
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=lab database CA" \
        -addext "keyUsage=critical,keyCertSign" -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=db.lab" \
        -keyout "$dir/server.key" -out "$dir/server.csr" 2>/dev/null
    printf '%s\n' "subjectAltName=DNS:localhost,DNS:db.lab,IP:127.0.0.1,IP:::1" "extendedKeyUsage=serverAuth" \
        "authorityKeyIdentifier=keyid" > "$dir/server.ext"
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 365 \
        -extfile "$dir/server.ext" -out "$dir/server.pem" 2>/dev/null
    rm -f "$dir/server.csr" "$dir/server.ext"
    chmod 644 "$dir/ca.pem"
    umask 022
}

mkdir -p "$dir"
chmod 755 "$dir"
secret "$dir/postgres.pw"
secret "$dir/app.pw"
certificates
[ "$(id -u)" = 0 ] && chown -R postgres:postgres "$dir"

if [ ! -d "$dir/data" ]; then
    server "$bin/initdb" -U postgres -A scram-sha-256 --pwfile="$dir/postgres.pw" -E UTF8 --locale=C.UTF-8 \
        -D "$dir/data" > "$dir/initdb.log"
fi
server "$bin/pg_ctl" -D "$dir/data" status > /dev/null 2>&1 ||
    server "$bin/pg_ctl" -w -D "$dir/data" -l "$dir/log" start > /dev/null -o "-p $port -k $dir \
        -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key"

root() {
    PGPASSWORD=$(cat "$dir/postgres.pw") "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres "$@"
}

if [ "$(root -d postgres -Atc "select count(*) from pg_database where datname = 'lab'")" = 0 ]; then
    root -d postgres -c 'create database lab'
    # The password travels on standard input: arguments are for everybody to see.
    root -d lab <<SQL
create role app login password '$(cat "$dir/app.pw")';
create table customers (
    id integer primary key, name text not null, email text not null, phone text, ssn text, card text, city text, note text
);
create table orders (
    id integer primary key, customer_id integer references customers, total numeric(10, 2), placed date
);
-- SSNs of area 9xx are never issued; card numbers are the networks' published test numbers; domains are reserved.
insert into customers values
    (1, 'Ada Example',    'ada@acme.example',    '+1 202 555 0101', '900-12-3456', '4111 1111 1111 1111', 'Oslo',   'prefers mail'),
    (2, 'Grace Sample',   'grace@acme.example',  '+1 202 555 0102', '900-23-4567', '5555 5555 5555 4444', 'Lisbon', 'card 4012888888881881 is the old one'),
    (3, 'Alan Specimen',  'alan@corp.example',   '+1 202 555 0103', '900-34-5678', '3782 822463 10005',   'Turin',  null),
    (4, 'Edith Instance', 'edith@corp.example',  '+1 202 555 0104', '900-45-6789', '6011 1111 1111 1117', 'Bruges', 'write to edith.home@mail.example'),
    (5, 'Linus Proxy',    'linus@corp.example',  null,              null,          null,                  'Turku',  '');
insert into customers
    select n, 'Customer ' || n, 'c' || n || '@bulk.example', '+1 202 555 0199', '900-00-' || lpad((n % 10000)::text, 4, '0'),
           '4242 4242 4242 4242', 'Anywhere', null from generate_series(6, 1000) as n;
insert into orders select n, 1 + n % 1000, n * 1.5, date '2026-01-01' + n % 300 from generate_series(1, 5000) as n;
grant select, insert, update, delete on customers, orders to app;
SQL
fi
echo "postgresql://app@127.0.0.1:$port/lab password=$dir/app.pw ca=$dir/ca.pem"

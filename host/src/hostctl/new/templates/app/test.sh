#!/bin/sh
# Starts the server with the library and sends it a request: `make test`. HOST names the server's executable.
set -eu

directory=$(mktemp -d)
mkfifo "$directory/log"
"${HOST:-host}" --bind 127.0.0.1:0 --no-control-socket ./{{library}} 2> "$directory/log" &
server=$!
trap 'kill "$server" 2> /dev/null || :; wait; rm -r "$directory"' EXIT
exec 3< "$directory/log"

url=
while [ -z "$url" ] && read -r line <&3; do
    echo "$line"
    case $line in *"Server is ready. Listening at: "*) url=${line##* } ;; esac
done
[ -n "$url" ] || { echo "the server did not start"; exit 1; }

response=$(curl --silent --show-error "$url/hello")
echo "$response"
[ "$response" = "You asked for /hello" ]

#!/bin/bash
# Installs what the Python tests need and this machine lacks, where that can be done: on Debian or Ubuntu, as root or by
# sudo. What is still missing is named by the tests themselves.
set -u
cd "$(dirname "$0")/../.."

cargo xtask python > /dev/null 2>&1 && exit 0
command -v apt-get > /dev/null || exit 0
as_root=
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2> /dev/null || exit 0
    as_root=sudo
fi
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)
{
    $as_root apt-get update -qq
    $as_root apt-get install -qq -y python3 python3-venv "libpython${version:-3.11}"
} > /dev/null 2>&1
exit 0

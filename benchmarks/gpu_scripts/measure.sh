#!/bin/sh
# In a folder with all parts: unpacks them, once, and measures. Arguments go to `benchmarks.gpu`.
set -e
cd "$(dirname "$0")"
unpack() { # xz is not everywhere
    if command -v xz >/dev/null; then
        tar -xJf "$1" -C unfinished
    else
        python3 -c 'import tarfile, sys; tarfile.open(sys.argv[1]).extractall("unfinished")' "$1"
    fi
}
if [ ! -d pack ]; then
    sha256sum --check --quiet parts.sha256
    rm -rf unfinished
    mkdir unfinished
    cat part.* | tar -xf -
    jobs=
    for archive in *.tar.xz; do
        unpack "$archive" &
        jobs="$jobs $!"
    done
    for job in $jobs; do wait "$job"; done
    rm ./*.tar.xz
    mv unfinished pack
fi
exec pack/run.sh "$@"

#!/bin/sh
# Installs the Debian packages that are missing, and nothing else. Silent when all is there.
#
#   scripts/deps.sh build         what plain `make` needs
#   scripts/deps.sh build test    and what `make check` needs
#   scripts/deps.sh build deb     and what `make deb` needs
#   scripts/deps.sh web           a browser, for the dashboard's tests
#   scripts/deps.sh build bench   and what `make bench` compares with
#   scripts/deps.sh fuzz          what `make fuzz-api` needs
#   scripts/deps.sh build mpi     and what ovr-worker needs, which is built where it is there
#   scripts/deps.sh mpi slurm     a Slurm cluster on this machine, for tests/slurm
set -eu

# package  what it brings: a header to include or a program to call. Names joined by | are
# alternatives; the first is the one to install.
build='
gcc                                            program:gcc
libc6-dev                                      header:stdio.h
make                                           program:make
libmicrohttpd-dev                              header:microhttpd.h
libgnutls28-dev                                header:gnutls/gnutls.h
libjansson-dev                                 header:jansson.h
libsqlite3-dev                                 header:sqlite3.h
libopenblas-dev|libopenblas-pthread-dev|libopenblas-openmp-dev|libopenblas-serial-dev header:cblas.h
liblapacke-dev                                 header:lapacke.h
nettle-dev                                     header:nettle/sha2.h
zlib1g-dev                                     header:zlib.h
libpng-dev                                     header:png.h
libcurl4-openssl-dev|libcurl4-gnutls-dev|libcurl4-nss-dev header:curl/curl.h
curl                                           program:curl
ca-certificates                                -
'
tests='
libcmocka-dev                                  header:cmocka.h
clang-format                                   program:clang-format
openssl                                        program:openssl
python3                                        program:python3
python3-numpy                                  -
mypy                                           program:mypy
python3-yaml                                   -
'
deb='
dpkg-dev                                       program:dpkg-buildpackage
debhelper                                      program:dh
dh-python                                      program:dh_python3
python3                                        program:python3
'
web='
chromium                                       program:chromium
chromium-driver                                program:chromedriver
python3-selenium                               -
fonts-dejavu-core                              -
'
bench='
python3                                        program:python3
python3-numpy                                  -
python3-torch                                  -
wrk                                            program:wrk
'
mpi='
libopenmpi-dev                                 program:mpicc
openmpi-bin                                    program:mpirun
'
slurm='
slurm-wlm                                      program:slurmctld
munge                                          program:munged
iproute2                                       program:ip
util-linux                                     program:nsenter
'
fuzz='
python3                                        program:python3
python3-venv                                   -
'

# Reads a table; prints the packages of which no alternative is installed.
missing_packages() {
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
        sed -n 's/^installed //p')
    printf '%s\n==\n%s\n' "$installed" "$1" | awk '
        /^==$/ { reading_table = 1; next }
        !reading_table { installed[$1] = 1; next }
        NF {
            n = split($1, names, "|")
            for (i = 1; i <= n && !(names[i] in installed); i++) ;
            if (i > n) print names[1]
        }'
}

# Reads a table; prints what the compiler or the shell cannot find.
missing_things() {
    printf '%s\n' "$1" | while read -r package brings; do
        case $brings in
        header:*)
            header=${brings#header:}
            printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$header" |
                ${CC:-cc} -E -x c - >/dev/null 2>&1 ||
                echo "  <$header>    (Debian: ${package%%|*})" ;;
        program:*)
            command -v "${brings#program:}" >/dev/null 2>&1 ||
                echo "  ${brings#program:}    (Debian: $package)" ;;
        esac
    done
}

# Another distribution: we don't know its packages, only what has to be there in the end.
look_without_dpkg() {
    lacking=$(missing_things "$1")
    [ -n "$lacking" ] || return 0
    cat >&2 <<END
This is not a Debian system (there is no dpkg-query), so nothing is installed here by itself.
Not found, please install it with this system's packages and try again:
$lacking
All that is needed: gcc, make, libmicrohttpd, GnuTLS, jansson, SQLite, OpenBLAS with LAPACKE, nettle, zlib,
libpng, libcurl and curl; for the tests cmocka, clang-format, openssl, python3 with numpy.
END
    exit 1
}

# Runs apt-get as root; what it says goes to the log.
apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120 "$@" \
        >>"$log" 2>&1
}

install() {
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # An update can fail over a repository that has nothing to do with us; the install decides.
    apt update || true
    # shellcheck disable=SC2086  # one word for each package
    apt install --no-install-recommends $1 && return 0
    echo "Installing failed. The end of what apt-get said:" >&2
    tail -n 20 "$log" >&2
    exit 1
}

wanted=
for set in "$@"; do
    case $set in
    build) wanted="$wanted$build" ;;
    test) wanted="$wanted$tests" ;;
    deb) wanted="$wanted$deb" ;;
    web) wanted="$wanted$web" ;;
    bench) wanted="$wanted$bench" ;;
    fuzz) wanted="$wanted$fuzz" ;;
    mpi) wanted="$wanted$mpi" ;;
    slurm) wanted="$wanted$slurm" ;;
    *) wanted= && break ;;
    esac
done
if [ -z "$wanted" ]; then
    echo "usage: scripts/deps.sh build|test|web|deb|bench|fuzz|mpi|slurm..." >&2
    exit 2
fi

if ! command -v dpkg-query >/dev/null 2>&1; then
    look_without_dpkg "$wanted"
    exit 0
fi

missing=$(missing_packages "$wanted" | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo=sudo
    if ! command -v sudo >/dev/null 2>&1; then
        echo "These packages are missing, and installing them takes root or sudo. As root:" >&2
        echo "  apt-get install --no-install-recommends $missing" >&2
        exit 1
    fi
fi
echo "Installing missing packages: $missing"
install "$missing"

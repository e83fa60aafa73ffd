#!/bin/sh
# Holds the rules of the tree: which folder may include which, which file owns which library, formatting.
# Prints every breach and ends with status 1 if there is one.
set -u
breaches=$(mktemp) || exit 1
trap 'rm -f "$breaches"' EXIT

# forbid PATTERN FILES… -- why: no line of these files may match.
forbid() {
    pattern=$1
    shift
    files=
    while [ "$1" != -- ]; do
        files="$files $1"
        shift
    done
    # shellcheck disable=SC2086
    grep -nE "$pattern" $files /dev/null | sed "s|\$|    <- $2|" >>"$breaches"
}

# Files of a folder, and of those in it, except some.
except() {
    folder=$1
    shift
    for file in "$folder"/*.[ch] "$folder"/*/*.[ch]; do
        case " $* " in *" $file "*) ;; *) [ -e "$file" ] && echo "$file" ;; esac
    done
}

server='server/*.[ch] server/store/*.[ch]'

# Data flows HTTP -> api -> server -> core, never back; server/main.c puts them together.
forbid '#include "(server|api|clients|worker)/' core/*.[ch] -- 'core knows nothing above it'
forbid '#include "(api|clients|worker)/' $(except server server/main.c) -- 'server does not know the api'
forbid '#include "(clients|worker)/' api/*.[ch] $server -- 'nobody includes clients or the worker'
forbid '#include "(api|clients)/' worker/*.[ch] -- 'the worker knows server and core'
forbid '#include "(core|server|api|worker)/' clients/*/*.[ch] -- 'clients know nothing of ours'

# One library, one owner.
forbid '<microhttpd' $(except api api/http.c) core/*.[ch] $server worker/*.[ch] -- 'libmicrohttpd belongs to api/http.c'
forbid '<gnutls' $(except api api/tls.c) core/*.[ch] $server worker/*.[ch] -- 'GnuTLS belongs to api/tls.c'
forbid '<sqlite3|"server/store/' $(except server server/store/*.[ch]) core/*.[ch] api/*.[ch] worker/*.[ch] -- 'sqlite3 belongs to server/store/'
forbid '<mpi[.]h' $(except worker worker/mpi.c) $server core/*.[ch] api/*.[ch] -- 'MPI belongs to worker/mpi.c'
forbid '<(cblas|lapacke)' $(except core core/linalg.c) $server api/*.[ch] worker/*.[ch] -- 'BLAS and LAPACK belong to core/linalg.c'
forbid '<jansson' core/*.[ch] $(except server server/spec.h server/spec.c server/sweep_points.h server/pointer.h server/pointer.c) $(except worker worker/work.c worker/encode.h worker/encode.c worker/reporter.c worker/attempt.c worker/client.c) -- 'jansson belongs to api/, server/spec.c and what is made of specs, and to what the worker says to its daemon'
forbid '<nettle' $(except server server/digest.h server/digest.c) core/*.[ch] api/*.[ch] worker/*.[ch] -- 'nettle belongs to server/digest.c'
forbid '<zlib' $(except server server/gunzip.c) core/*.[ch] api/*.[ch] worker/*.[ch] -- 'zlib belongs to server/gunzip.c'
forbid '<png' $(except api api/png.c) core/*.[ch] $server worker/*.[ch] -- 'libpng belongs to api/png.c'
forbid '<pthread' $(except core core/team.c) -- 'core has no threads but its team'
forbid '<curl' core/*.[ch] $server api/*.[ch] $(except worker worker/client.c) -- 'libcurl belongs to the clients, tests and worker/client.c'
forbid '<stdio.h>' core/train.[ch] core/net.[ch] core/probe.[ch] -- 'core does not print'

# The dashboard: text is set as text, nothing is evaluated, no style in markup; vendor/ is as published.
forbid '(inner|outer)HTML|insertAdjacentHTML|document[.]write|eval[(]|new Function|setAttribute[(].style' clients/web/*.js -- 'elements are made by dom.js'
forbid '<(script|style)>| style=| on[a-z]+=' clients/web/index.html -- 'nothing inline'
(cd clients/web/vendor && sha256sum --quiet --check SHA256SUMS) >>"$breaches" 2>&1 ||
    echo 'clients/web/vendor: not what was published' >>"$breaches"

# Things we don't do.
forbid '(^|[^_[:alnum:]])(system|popen|gets|strcpy|strcat|tmpnam)[(]' core/*.[ch] $server api/*.[ch] worker/*.[ch] clients/*/*.[ch] -- 'no shell, no unbounded copies'
forbid '(^|[^X])(TODO|FIXME|XXX)([^X]|$)' Makefile README.md core/*.[ch] $server api/*.[ch] worker/*.[ch] clients/*/*.[ch] scripts/*demo* scripts/*deps* -- 'finish it or write an issue'

if command -v clang-format >/dev/null; then
    for file in */*.[ch] */*/*.[ch]; do
        [ -e "$file" ] || continue
        clang-format --dry-run -Werror "$file" >/dev/null 2>&1 ||
            echo "$file: not formatted; run make format" >>"$breaches"
    done
else
    echo "clang-format is missing (make check installs it): formatting not checked"
fi

if [ -s "$breaches" ]; then
    cat "$breaches"
    exit 1
fi
echo "source rules hold"

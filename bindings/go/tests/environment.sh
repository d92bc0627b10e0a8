# shellcheck shell=sh
# To be sourced in bindings/go, with a folder in $scratch: lets go build in the source tree,
# against the library in CHANNEL_LAYER_TEST_LIBRARY, with the modules of Debian's packages and no
# network. Nothing of it is in the module itself.

: "${scratch:?}" # else what is meant for it would be done to the module
root=$(cd ../.. && pwd)
sources=/usr/share/gocode/src/github.com/vmihailenco
if [ ! -d "$sources/msgpack/v5" ]; then
    echo "there is no $sources/msgpack/v5: install golang-github-vmihailenco-msgpack.v5-dev" >&2
    exit 1
fi

cp go.mod go.sum "$scratch/"
# Only the tests of msgpack need testify.
mkdir -p "$scratch/testify"
echo 'module github.com/stretchr/testify' >"$scratch/testify/go.mod"
(
    cd "$scratch" || exit
    for module in msgpack/v5 tagparser/v2; do
        go mod edit -replace "github.com/vmihailenco/$module=$sources/$module"
    done
    go mod edit -replace "github.com/stretchr/testify=$scratch/testify"
)
export GOFLAGS="-modfile=$scratch/go.mod -mod=mod" GOPROXY=off GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=1

sed -e "s|@PREFIX@|$scratch|" -e "s|@LIBDIR@|$CHANNEL_LAYER_TEST_LIBRARY|" \
    -e "s|@INCLUDEDIR@|$root/include|" -e "s|@VERSION@|0|" -e "s|@STATIC_LIBS@|$(sed -n 's/^STATIC_LIBS := //p' "$root/Makefile")|" \
    "$root/packaging/channel_layer.pc.in" >"$scratch/channel_layer.pc"
export PKG_CONFIG_PATH="$scratch" LD_LIBRARY_PATH="$CHANNEL_LAYER_TEST_LIBRARY"

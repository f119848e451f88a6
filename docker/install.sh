#!/bin/sh
# Install one part of ecgpipe into a virtual environment, which is made if it is not there.
#
#   install.sh VENV torch          PyTorch: from the index TORCH_INDEX, or pip's own if that is empty
#   install.sh VENV dependencies   what else pyproject.toml asks for, with its extras EXTRAS
#   install.sh VENV ecgpipe        the checkout itself, with nothing else
#
# In this order. Each part is a layer of the image: the large ones seldom change. Versions are
# those of constraints.txt, and only wheels are taken, so that no compiler is needed.
set -eu

venv=${1:?name the folder of the virtual environment}
part=${2:?name a part: torch, dependencies or ecgpipe}
checkout=$(cd "$(dirname "$0")/.." && pwd)
constraints=$checkout/constraints.txt

test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"

install() {
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --root-user-action ignore --only-binary :all: --constraint "$constraints" "$@"
}

case $part in
torch)
    # The index of one build of torch has few versions of other packages: those come with the rest.
    torch=$(grep '^torch==' "$constraints")
    install ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} "$torch"
    ;;
dependencies)
    needed=$("$venv/bin/python" - "$checkout/pyproject.toml" "${EXTRAS-flows,s3,dask}" <<'END'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    settings = tomllib.load(file)
project = settings["project"]
extras = [name for name in sys.argv[2].split(",") if name]
wanted = [settings["build-system"]["requires"], project["dependencies"]]
wanted += [project["optional-dependencies"][name] for name in extras]
print(*(requirement for group in wanted for requirement in group), sep="\n")
END
    )
    printf '%s\n' "$needed" | install --requirement /dev/stdin
    ;;
ecgpipe)
    # Editable: the flows are run from the checkout, so the code is there already.
    install --no-deps --no-build-isolation --editable "$checkout"
    "$venv/bin/python" -m pip check
    ;;
*)
    echo "install.sh: part $part: there are torch, dependencies and ecgpipe" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# The wheel house of the image: the harness itself and everything it needs, at the pinned versions.
# Run it where there is network, with the Python version of the image; copy the folder along.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?usage: slurm/apptainer/wheels.sh FOLDER [PIP OPTIONS...]}
shift
mkdir -p "$folder"
"${PYTHON:-python3}" -m pip wheel --wheel-dir "$folder" --constraint constraints.txt "$@" '.[run]'
(cd "$folder" && sha256sum -- *.whl >SHA256SUMS)
echo "$(wc -l <"$folder/SHA256SUMS") wheels, $(du -sh "$folder" | cut -f1), in $folder" >&2

#!/bin/sh
# Wait for Prefect's server, make the work pools, deploy the flows, and become a worker.
#
#   worker.sh POOL [OPTION…]       options are those of `prefect worker start`
#
# It runs in any folder: relative paths among the flows' parameters are relative to that one.
# PREFECT_API_URL names the server; it has WAIT seconds to answer. The worker tells its health at
# http://127.0.0.1:8080/health; PREFECT_WORKER_WEBSERVER_HOST and _PORT place it elsewhere.
set -eu

pool=${1:?name a work pool}
shift
checkout=$(cd "$(dirname "$0")/.." && pwd)
export PWD # prefect.yaml deploys the flows of this folder
export PREFECT_WORKER_WEBSERVER_HOST="${PREFECT_WORKER_WEBSERVER_HOST:-127.0.0.1}"

python "$checkout/docker/healthy.py" \
    "${PREFECT_API_URL:?set it to the address of the server}/health" "${WAIT:-180}"

# An entry point in prefect.yaml is a path from this folder. Another worker may make it now.
test -e flows || ln -s "$checkout/flows" flows || test -e flows

named=$(python -c '
import sys, yaml
with open(sys.argv[1]) as file:
    deployments = yaml.safe_load(file)["deployments"]
print(*sorted({deployment["work_pool"]["name"] for deployment in deployments}))
' "$checkout/prefect.yaml")
for name in $named; do
    # Another worker may make it at the same time.
    prefect work-pool inspect "$name" >/dev/null 2>&1 ||
        prefect work-pool create "$name" --type process ||
        prefect work-pool inspect "$name" >/dev/null
done

# It says ten lines for each deployment, which matter when it fails.
said=$(prefect --no-prompt deploy --all --prefect-file "$checkout/prefect.yaml" 2>&1) || {
    printf '%s\n' "$said" >&2
    exit 1
}
echo "The flows of $checkout/prefect.yaml are deployed, to run in $PWD."
exec prefect worker start --pool "$pool" --name "$(uname -n)" --with-healthcheck "$@"

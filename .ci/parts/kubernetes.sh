#!/bin/bash
# docs/deploy/kubernetes.yaml against the schemas of the Kubernetes API, the oldest and the newest version that are at hand;
# whether its parts refer to each other and to metrics that exist; and whether these checks find faults.
source "$(dirname "$0")/common.sh"

venv=$target/venv-kubernetes requirements=tests/requirements-kubernetes.txt
if ! cmp -s $requirements "$venv/requirements.txt"; then
    step "Installing $requirements"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r $requirements
    cp $requirements "$venv/requirements.txt"
fi

manifest=docs/deploy/kubernetes.yaml
faulty=$(mktemp --suffix .yaml) words=$(mktemp)
trap 'rm -f "$faulty" "$words"' EXIT

# Whether a manifest is valid: valid FILE
valid() {
    for version in 1.25.0 1.37.0; do
        "$venv/bin/kubernetes-validate" --strict --no-warn --kubernetes-version $version "$1" || return
    done
    "$venv/bin/python" .ci/kubernetes.py "$1" docs/deploy/prometheus-adapter.yaml docs/metrics.md
}

# Fails unless a manifest with a fault is refused: refused SED-SCRIPT
refused() {
    sed "$1" $manifest > "$faulty"
    ! cmp -s $manifest "$faulty" || { echo "changes nothing: $1"; exit 1; }
    if valid "$faulty" > "$words" 2>&1; then
        echo "accepted with the fault: $1"
        exit 1
    fi
    echo "refused: $1: $(grep -v ^INFO "$words" | head -n 1)"
}

step "The manifest"
valid $manifest

step "Manifests with a fault"
refused 's/averageValue:/averageValues:/'
refused 's/maxReplicas: 20/maxReplicas: many/'
refused 's/minReplicas: 2/minReplica: 2/'
refused 's/type: Pods/type: Pod/; s/pods:/podz:/'
refused 's/scaleTargetRef: {apiVersion: apps\/v1, kind: Deployment, name: app}/scaleTargetRef: {kind: Deployment}/'
refused 's/kind: Deployment, name: app}/kind: Deployment, name: api}/'
refused 's/jimu_request_queued_seconds}/jimu_request_queue_seconds}/'
refused 's/targetPort: http}/targetPort: htp}/'
refused 's/port: metrics}/port: metric}/'
refused 's/maxUnavailable: 1$/maxUnavailable: 1.5/'
refused 's/selector: {app: app}/selector: {app: api}/'
refused 's/prometheus.io\/port: "9100"/prometheus.io\/port: "9101"/'
refused 's/terminationGracePeriodSeconds: 60/terminationGracePeriodSeconds: 30/'
refused 's/requests: {cpu: "1", memory: 512Mi}/requests: {memory: 512Mi}/'
refused 's/periodSeconds: 10/periodSeconds: ten/'

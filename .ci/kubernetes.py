"""Checks what the schemas of the Kubernetes API cannot: whether the parts of a manifest fit together.

python kubernetes.py MANIFEST ADAPTER-RULES METRICS-PAGE
"""

import re
import sys

import yaml


def main(manifest, adapter, metrics):
    with open(manifest) as file:
        parts = {part["kind"]: part for part in yaml.safe_load_all(file)}
    with open(adapter) as file:
        rules = yaml.safe_load(file)["rules"]["custom"]
    with open(metrics) as file:
        page = file.read()
    faults = [*ports(parts), *selectors(parts), *stop(parts), *autoscaler(parts, rules, page)]
    for fault in faults:
        print(f"{manifest}: {fault}")
    return bool(faults)


def ports(parts):
    """Named ports that no container has."""
    pod = parts["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    known = {port["name"]: port["containerPort"] for port in container["ports"]}
    used = [port["targetPort"] for port in parts["Service"]["spec"]["ports"]]
    for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
        (action,) = (container[probe][kind] for kind in ("httpGet", "tcpSocket") if kind in container[probe])
        used.append(action["port"])
    for name in used:
        if name not in known:
            yield f"no port is named {name}"
    scraped = pod["metadata"]["annotations"]["prometheus.io/port"]
    if scraped != str(known["metrics"]):
        yield f"Prometheus is to read port {scraped}"


def selectors(parts):
    """Selectors that do not match the pods."""
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    wanted = {
        "Deployment": parts["Deployment"]["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        "Service": parts["Service"]["spec"]["selector"],
    }
    for kind, selector in wanted.items():
        if not selector.items() <= labels.items():
            yield f"the {kind} selects {selector}, the pods have {labels}"


def stop(parts):
    """A pod that is killed before it may have finished its requests."""
    pod = parts["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    arguments = container["args"]
    graceful = arguments[arguments.index("--graceful-timeout") + 1]
    if pod["terminationGracePeriodSeconds"] <= int(pause) + int(graceful):
        yield "terminationGracePeriodSeconds is too short for preStop and --graceful-timeout"


def autoscaler(parts, rules, page):
    """A target that does not exist, or a metric that nothing provides."""
    autoscaler = parts["HorizontalPodAutoscaler"]["spec"]
    deployment = parts["Deployment"]
    if autoscaler["scaleTargetRef"]["name"] != deployment["metadata"]["name"]:
        yield "the autoscaler scales something else"
    served = {metric for rule in rules for metric in names(rule)}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for metric in autoscaler["metrics"]:
        if metric["type"] == "Resource":
            if metric["resource"]["name"] not in container["resources"]["requests"]:
                yield "the container requests none of the resource that the autoscaler measures"
        else:
            name = metric["pods"]["metric"]["name"]
            if name not in served:
                yield f"no rule of the adapter serves {name}"
            if f"`{name}{{" not in page:
                yield f"the server has no metric {name}"


def names(rule):
    """The names under which a rule serves the series that it reads."""
    for series in re.findall(r"^\w+", rule["seriesQuery"]):
        replacement = rule["name"]["as"].replace("${1}", r"\1")
        yield re.sub(rule["name"]["matches"], replacement, series)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Renders the chart and checks the result. Run by scripts/charts."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

CHART = Path("deploy/helm/godwit")
# The oldest supported Kubernetes (Chart.yaml), and the newest with published schemas.
VERSIONS = ["1.27.0", "1.37.0"]
SERVICES = {"ws-gateway": "gateway", "consumer": "consumer", "db-service": "dbService", "pusher": "pusher"}

# Values that must be refused, and a part of the expected error.
REFUSED = [
    (["gateway.replica=3"], "replica is not allowed"),
    (["gateway.replicas=many"], "gateway.replicas"),
    (["gateway.replicas=0"], "gateway.replicas"),
    (["gateway.drainSeconds=0"], "gateway.drainSeconds"),
    (["antiAffinity=perhaps"], "antiAffinity"),
    (["kafka.brokers={kafka}"], "kafka.brokers"),
    (["networkPolicy.redis.ports={70000}"], "networkPolicy.redis.ports"),
    (["secrets.others[0].setting=kafka.password"], "secrets.others"),
    (["gateway.ingress.enabled=true,gateway.ingress.host="], "gateway.ingress"),
    (["gateway.disruption.maxUnavailable=0"], "gateway.disruption.maxUnavailable"),
    (["tryout.postgres.enabled=false"], "secrets.postgres.name: name the Secret"),
    (["tryout.kafka.enabled=false"], "kafka.brokers: name the brokers"),
    (["config.gateway.drain=5s"], "config.gateway.drain: set gateway.drainSeconds"),
    (["config.gateway.drain_grace=10s"], "config.gateway.drain_grace: set gateway.preStopSeconds"),
    (["config.discovery.drain_grace=10s"], "config.discovery.drain_grace: set preStopSeconds"),
    (["config.db.postgres=postgres://u:p@h/d"], "config.db.postgres: name a Secret"),
    (["config.redis.url=redis://:p@h"], "config.redis.url: name a Secret"),
    (["config.auth.keys={k=secret}"], "config.auth.keys: name Secrets"),
    (["config.operator.token=secret"], "config.operator.token: name a Secret"),
    (["config.kafka.sasl_password=secret"], "config.kafka.sasl_password: name a Secret"),
    (["config.discovery.consul_token=secret"], "config.discovery.consul_token: here services find each other by DNS"),
    (["config.kafka.partitions=3", "consumer.autoscaling.enabled=true"], "6 consumers can't share 3 partitions"),
]

failures = []


def check(holds, failure):
    if not holds:
        failures.append(failure)


def helm(command, *arguments):
    done = subprocess.run(["helm", command, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def render(values, version):
    """The documents of a set of values."""
    where = f"{values.name}, Kubernetes {version}"
    status, out, _ = helm("lint", "--strict", "--kube-version", version, str(CHART), "-f", str(values))
    check(status == 0, f"{where}: helm lint: {out}")
    status, out, errors = helm("template", "godwit", str(CHART), "--kube-version", version, "-n", "chat", "-f", str(values))
    check(status == 0, f"{where}: helm template: {errors}")
    return [document for document in yaml.safe_load_all(out) if document]


def validate(where, document, version):
    """Validates strictly: an unknown field fails, because Kubernetes would drop it silently."""
    try:
        kubernetes_validate.validate(document, version.rsplit(".", 1)[0], strict=True)
    except kubernetes_validate.ValidationError as error:
        failures.append(f"{where}: {document['kind']} {document['metadata']['name']}: {error}")


def of_kind(documents, kind):
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def certificates(folder):
    """Creates an authority and one certificate for all names, with the file names of a cert-manager Secret."""
    names = ",".join(f"DNS:{name}" for name in (*SERVICES, "chat.example.com"))
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    subprocess.run(
        [*request, "-subj", "/CN=authority", "-keyout", folder / "ca.key", "-out", folder / "ca.crt"], check=True, capture_output=True
    )
    subprocess.run(
        [*request, "-subj", "/CN=godwit", "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True,
        capture_output=True,
    )


def program(where, deployment, config, programs):
    """Checks the configuration of a pod with the program itself."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    mounted = container["volumeMounts"]
    named = {m["mountPath"] for m in mounted}
    for path in set(re.findall(r"/etc/godwit/(?:certificates|tls|secrets)", config + str(container["env"]))):
        check(path in named, f"{where}: {path} is in the configuration but not mounted")
    check(any(m["mountPath"] == "/etc/godwit/godwit.toml" for m in mounted), f"{where}: no configuration is mounted")
    files = {
        item["path"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }
    binary = programs / container["name"]
    if not binary.exists():
        return failures.append(f"{where}: {binary} is missing: run cargo build --workspace --bins")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        certificates(folder)
        (folder / "godwit.toml").write_text(re.sub(r"/etc/godwit/(certificates|tls)/", f"{folder}/", config))
        for name in files:
            (folder / name).write_text("postgres://u:p@h/d" if name == "postgres" else "redis://:p@h" if name == "redis" else "s" * 32)
        environment = {"PATH": os.environ["PATH"]}
        for variable in container["env"]:
            value = variable.get("value", "10.0.0.7").replace("$(POD_IP)", "10.0.0.7")
            environment[variable["name"]] = re.sub(r"/etc/godwit/(secrets|tls)/", f"{folder}/", value)
        command = [binary, "--config", folder / "godwit.toml", "--check-config"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    check(done.returncode == 0, f"{where}: {done.stderr}")
    check("s" * 32 not in done.stdout and "10.0.0.7" in done.stdout or container["name"] == "consumer", f"{where}: {done.stdout}")


def promises(where, documents, values, programs):
    """Checks the objects of every service and the references between them."""
    config = of_kind(documents, "ConfigMap")["godwit"]["data"]["godwit.toml"]
    deployments, pdbs = of_kind(documents, "Deployment"), of_kind(documents, "PodDisruptionBudget")
    services, policies = of_kind(documents, "Service"), of_kind(documents, "NetworkPolicy")
    accounts, scalers = of_kind(documents, "ServiceAccount"), of_kind(documents, "HorizontalPodAutoscaler")
    check(len(deployments) == len(SERVICES), f"{where}: {len(deployments)} deployments")
    for short, key in SERVICES.items():
        name = f"godwit-{short}"
        if name not in deployments:
            failures.append(f"{where}: there is no deployment {name}")
            continue
        spec = deployments[name]["spec"]
        pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
        container, here = pod["containers"][0], f"{where}: {name}"
        matches = lambda selector: all(labels.get(k) == v for k, v in selector.items())
        check(matches(spec["selector"]["matchLabels"]), f"{here}: the selector does not match its pods")
        for kind, found in (("disruption budget", pdbs), ("network policy", policies)):
            selector = found.get(name, {}).get("spec", {})
            selector = selector.get("selector", selector.get("podSelector", {})).get("matchLabels", {"none": "none"})
            check(matches(selector), f"{here}: no {kind} that selects its pods")
        check(pod["serviceAccountName"] == name and name in accounts, f"{here}: no service account of its own")
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            check(container[probe]["httpGet"] == {"path": path, "port": "admin"}, f"{here}: {probe}")
        safe = container["securityContext"]
        check(pod["securityContext"]["runAsNonRoot"] and safe["readOnlyRootFilesystem"], f"{here}: may run as root, or write to its file system")
        check(not safe["allowPrivilegeEscalation"] and safe["capabilities"]["drop"] == ["ALL"], f"{here}: has privileges")
        check("podAntiAffinity" in pod["affinity"], f"{here}: no anti-affinity")
        stop = int(re.search(r'drain = "(\d+)s"', config)[1]) + 26 if short == "ws-gateway" else {"consumer": 26}.get(short, 16)
        before = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", 0])[1])
        check(pod["terminationGracePeriodSeconds"] > before + stop, f"{here}: is killed before its drain ends")
        wanted = values.get(key, {}).get("autoscaling", {}).get("enabled", False)
        check(wanted == (name in scalers) == ("replicas" not in spec), f"{here}: autoscaling")
        for service in services.values():
            if service["spec"]["selector"]["app.kubernetes.io/component"] == short:
                check(matches(service["spec"]["selector"]), f"{here}: the service does not match its pods")
                for port in service["spec"]["ports"]:
                    check(port["targetPort"] in ports, f"{here}: the service names an unknown port")
        program(here, deployments[name], config, programs)
    for name, port in re.findall(r'(?:db|pusher) = \["([^:"]+):(\d+)"\]', config):
        found = services.get(name, {}).get("spec", {})
        check(found.get("clusterIP") == "None", f"{where}: {name} does not resolve to pods")
        check(int(port) in [p["port"] for p in found.get("ports", [])], f"{where}: {name} has no port {port}")
    check(re.search(r"(db|pusher) = ", config), f"{where}: no addresses of services")
    secrets = of_kind(documents, "Secret")
    tryout = {f"godwit-{name}" for name, its in values.get("tryout", {}).items() if its.get("enabled")}
    check(set(secrets) <= tryout, f"{where}: secrets are written into the values: {set(secrets) - tryout}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--programs", type=Path, required=True)
    arguments.add_argument("values", type=Path, nargs="*")
    arguments = arguments.parse_args()
    sets = sorted(CHART.glob("values-*.yaml")) + arguments.values
    check(len(sets) >= 3, "there are fewer than three sets of values")
    documents, count = [], 0
    for values in sets:
        for version in VERSIONS:
            documents = render(values, version)
            for document in documents:
                validate(f"{values.name}, Kubernetes {version}", document, version)
            count += len(documents)
        promises(values.name, documents, yaml.safe_load(values.read_text()), arguments.programs)
    # Check that the validation can fail.
    broken = next(d for d in documents if d["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    before = len(failures)
    validate("a misspelt field", broken, VERSIONS[0])
    if len(failures) == before:
        failures.append("the validation accepted an unknown field")
    del failures[before : before + 1]
    for assignments, sentence in REFUSED:
        sets_ = [part for assignment in assignments for part in ("--set", assignment)]
        small = CHART / "values-small.yaml"
        status, _, errors = helm("template", "godwit", str(CHART), "--kube-version", VERSIONS[0], "-f", str(small), *sets_)
        check(status != 0, f"{assignments} was not refused")
        check(sentence in errors, f"{assignments}: '{sentence}' is not in: {errors}")
    # Debian's promtool has no Kubernetes discovery, so check this file by hand.
    jobs = yaml.safe_load(Path("deploy/prometheus/kubernetes.yml").read_text())["scrape_configs"]
    check(any("job" == rule.get("target_label") for job in jobs for rule in job["relabel_configs"]), "kubernetes.yml: no job")
    for failure in failures:
        print(failure, file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"{len(sets)} sets of values, {count} documents valid for Kubernetes {' and '.join(VERSIONS)}, {len(REFUSED)} wrong values refused")


main()

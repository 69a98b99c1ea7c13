"""The dashboard *Service*: is it well, if not since when, where the time goes, and which version does it."""

from board import Panel

GOOD, WARN, BAD = "green", "orange", "red"
# Names of routes that answer vectors, and of answers that are failures: as the rules have them.
FAILED = 'status=~"5..|424"'
STAGES = "sextant_stage_duration_seconds"
DURATION = "sextant_http_request_duration_seconds"
REQUESTS = "sum(rate(sextant_http_requests_total{@N,@E}[$__rate_interval]))"


def percentile(share: float, name: str, by: str, selector: str) -> str:
    labels = f"le, {by}" if by else "le"
    # Where nothing was observed it is no number, which no comparison lets through.
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket{{{selector}}}[$__rate_interval]))) >= 0"


WELL = [
    Panel("Alerts", "How many alerts of Sextant fire. Their list is to the right; each names its section of the runbook.",
          [("firing", 'count(ALERTS{@N,alertname=~"Sextant.*",alertstate="firing"}) or vector(0)')],
          kind="stat", width=3, height=5, steps=[(None, GOOD), (1, BAD)]),
    Panel("Replicas", "Processes whose metrics Prometheus has. Fewer than you deployed: look for what keeps the others from "
          "getting ready.", [("replicas", 'count(sextant_sync_failures_total{@N,reason="load"})')],
          kind="stat", width=3, height=5),
    Panel("Requests failed", "Share of embedding requests answered with a 5xx or 424 in the last 5 minutes. The objective is 0.1 %.",
          [("failed", f'(sum(rate(sextant_http_requests_total{{@N,@E,{FAILED}}}[5m])) or vector(0)) / '
                      "(sum(rate(sextant_http_requests_total{@N,@E}[5m])) > 0)")],
          "percentunit", "stat", 3, 5, [(None, GOOD), (0.001, WARN), (0.0144, BAD)], decimals=2),
    Panel("Slower than 0.5 s", "Share of embedding requests that took longer than 0.5 s in the last 5 minutes. The objective is 1 %.",
          [("slow", f'1 - sum(rate({DURATION}_bucket{{@N,@E,le="0.5"}}[5m])) / (sum(rate({DURATION}_count{{@N,@E}}[5m])) > 0)')],
          "percentunit", "stat", 3, 5, [(None, GOOD), (0.01, WARN), (0.144, BAD)], decimals=2),
    Panel("Refused", "Share of embedding requests that got 429 in the last 5 minutes: more comes than can be computed. Row "
          "*Queue* says where.", [("refused", "sum(rate(sextant_rejected_total{@N}[5m])) / "
                                      "(sum(rate(sextant_http_requests_total{@N,@E}[5m])) > 0)")],
          "percentunit", "stat", 3, 5, [(None, GOOD), (0.01, WARN), (0.05, BAD)], decimals=2),
    Panel("What fires", "Alerts of Sextant that fire now. docs/runbook.md has a section for each.",
          [("", 'ALERTS{@N,alertname=~"Sextant.*",alertstate="firing"}')], kind="table", width=9, height=5,
          columns={"alertname": "Alert", "severity": "Severity", "instance": "Replica", "model": "Model", "version": "Version"}),
]

TRAFFIC = [
    Panel("Requests by route", "Answers a second, health checks and scrapes left out. A fall to nothing while clients are up "
          "points in front of the server.",
          [("{{route}}", 'sum by (route) (rate(sextant_http_requests_total{@N,route!~"/(livez|readyz|health|metrics)"}'
                         "[$__rate_interval])) > 0")], "reqps", stack=True),
    Panel("Answers by status", "Embedding requests by status. 4xx is the clients' doing, 429 load, 5xx and 424 ours; 503 comes "
          "from a server that drains or has no version yet.",
          [("{{status}}", "sum by (status) (rate(sextant_http_requests_total{@N,@E}[$__rate_interval])) > 0")], "reqps",
          stack=True),
    Panel("Requests by key", "Answers a second by the name of the key; none has none that is known, other is beyond the first 256 names. "
          "A name that should be gone, or none rising: see docs/security.md.",
          [("{{key}}", "sum by (key) (rate(sextant_key_requests_total{@N}[$__rate_interval]))")], "reqps", stack=True, width=12),
    Panel("Keys refused", "Answers with 401, 403 and 429 by key: unknown keys, missing roles, used up limits; and keys files that could "
          "not be read.",
          [("{{key}} {{status}}", 'sum by (key, status) (rate(sextant_key_requests_total{@N,status=~"401|403|429"}[$__rate_interval]))'),
           ("file not read, {{instance}}",
            'sum by (instance) (rate(sextant_key_reloads_total{@N,outcome="failed"}[$__rate_interval]))')],
          "reqps", width=12),
    Panel("Budget burnt", "How many times as fast as allowed the budget of 30 days burns: 1 uses all of it in 30 days, 14.4 in "
          "two. The alerts look at an hour and 5 minutes together.",
          [("failed, 1 h", "sextant:error_share:rate1h{@N} / 0.001"), ("failed, 5 m", "sextant:error_share:rate5m{@N} / 0.001"),
           ("slow, 1 h", "sextant:slow_share:rate1h{@N} / 0.01"), ("slow, 5 m", "sextant:slow_share:rate5m{@N} / 0.01")],
          steps=[(None, GOOD), (1, WARN), (14.4, BAD)]),
]

LATENCY = [
    Panel("Whole requests", "From the request's head to the answer's, over all embedding routes. p50 up: everything is slower; "
          "only p99 up: long texts, bulk, or one replica.",
          [(name, percentile(share, DURATION, "", "@N,@E")) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))],
          "s", steps=[(None, GOOD), (0.5, BAD)]),
    Panel("Where the time goes", "Mean time of a request in each stage. queue: too little to compute with; infer: the model or "
          "its machine; tokenize and finish are small unless the machine is starved.",
          [("{{stage}}", f"sum by (stage) (rate({STAGES}_sum{{@V}}[$__rate_interval])) / "
                         f"(sum by (stage) (rate({STAGES}_count{{@V}}[$__rate_interval])) > 0)")], "s", stack=True),
    Panel("p99 by stage", "Slowest hundredth of each stage. A queue far above infer means waiting, not computing.",
          [("{{stage}}", percentile(0.99, STAGES, "stage", "@V"))], "s"),
    Panel("p95 of inference by version", "Run time of batches. After a rollout: is the new version slower? Batches may differ, "
          "so the pairs of *Drift and versions* decide.",
          [("{{model}}@{{version}}", percentile(0.95, STAGES, "model, version", '@V,stage="infer"'))], "s"),
    Panel("p95 by replica", "One line above the others: that machine is slow, or shares its cores. All together: load or "
          "version. Inference only.",
          [("{{instance}}", percentile(0.95, STAGES, "instance", '@V,stage="infer"'))], "s"),
    Panel("Vectors a second", "Vectors answered by version: the work done. Less of it at the same requests: fewer inputs in each.",
          [("{{model}}@{{version}}", "sum by (model, version) (rate(sextant_embeddings_total{@V}[$__rate_interval]))")], "ops",
          stack=True),
]

QUEUE = [
    Panel("Tokens waiting", "Tokens in the queue of each replica. Steady above one batch means that it computes as fast as it "
          "can; near --max-queue-tokens (262144) it refuses.",
          [("{{instance}} {{model}}@{{version}}", "sum by (instance, model, version) (sextant_queue_tokens{@V})")]),
    Panel("Inputs waiting", "Many inputs with few tokens are short texts: larger batches help. Few with many tokens are long ones.",
          [("{{instance}} {{model}}@{{version}}", "sum by (instance, model, version) (sextant_queue_items{@V})")]),
    Panel("Refused, and why", "Requests that got 429 before any work. overloaded: the queue of a version was full. requests: "
          "more than --max-requests at once. held_bytes: large bodies and answers.",
          [("{{reason}} {{model}}", "sum by (reason, model) (rate(sextant_rejected_total{@N}[$__rate_interval]))")], "reqps"),
    Panel("Processor", "Cores in use by each replica. At its limit with a queue: add replicas. Below with a queue: throttled, or "
          "too few sessions. Over 2 minutes: the process counts whole seconds.",
          [("{{instance}}", "rate(process_cpu_seconds_total{@N}[2m]) and on (instance, job) "
                            'sextant_sync_failures_total{@N,reason="load"}')]),
    Panel("Memory", "Resident memory. It steps up with each version that is loaded; a slope without a rollout is a leak.",
          [("{{instance}}", "process_resident_memory_bytes{@N} and on (instance, job) "
                            'sextant_sync_failures_total{@N,reason="load"}')], "bytes"),
    Panel("Spans dropped", "Spans of traces that no collector got. export_failed: it is away or refuses them; the log says why. "
          "queue_full: more than it takes, so --trace-sample is too high. Requests go on either way.",
          [("{{instance}} {{reason}}", "sum by (instance, reason) (rate(sextant_trace_spans_dropped_total{@N}[$__rate_interval]))")],
          "ops"),
    Panel("Open files", "Share of the file descriptors in use: connections, mostly. At 1 no client gets in.",
          [("{{instance}}", "process_open_fds{@N} / process_max_fds and on (instance, job) "
                            'sextant_sync_failures_total{@N,reason="load"}')], "percentunit", high=1),
]

DEVICES = [
    Panel("GPU memory", "In use on each GPU by all processes, not this one alone, and what it has. Sessions keep what their largest batch "
          "needed, so a full one is no fault while nothing is split. Servers without a GPU have no line.",
          [("{{instance}} GPU {{device}}", "sextant_gpu_memory_used_bytes{@N}"),
           ("{{instance}} GPU {{device}}: all of it", "sextant_gpu_memory_total_bytes{@N}")], "bytes", dashed=": all of it$"),
    Panel("GPU in use", "Share of the time in which anything ran on the GPU, however little of it. Low with tokens waiting: it waits for the "
          "processor, which tokenizes, copies and writes JSON. A slice of a GPU has none.",
          [("{{instance}} GPU {{device}}", "sextant_gpu_utilization_ratio{@N}")], "percentunit", high=1),
    Panel("Out of device memory", "Batches that were split in two because the GPU's memory did not suffice; a single input that still does "
          "not fit gets 503. Above 0 for long: smaller batches, or fewer versions on the GPU.",
          [("{{instance}} {{model}}@{{version}}",
            "sum by (instance, model, version) (rate(sextant_out_of_memory_total{@V}[$__rate_interval]))")], "ops"),
    Panel("Where the graph runs", "Nodes of one session by execution provider, with how many replicas say so. Some on the CPU beside a GPU are "
          "arithmetic on shapes. Two numbers for one version and provider: replicas differ.",
          [("", 'count_values by (namespace, model, version, provider) ("nodes", sextant_engine_nodes{@V})')],
          kind="table", width=24,
          columns={"namespace": "Namespace", "model": "Model", "version": "Version", "provider": "Provider", "nodes": "Nodes",
                   "Value": "Replicas"}),
]

CONNECTIONS = [
    Panel("Connections", "Open connections of each replica by listener. At --max-connections (8192) those without a request give way "
          "to new ones.", [("{{instance}} {{listener}}", "sum by (instance, listener) (sextant_connections{@N})")]),
    Panel("Ended by the server", "head: a request that did not come; idle: none for long; write: an answer that is not taken; "
          "handshake: no TLS. gave_way and refused: full.",
          [("{{listener}}: {{reason}}", "sum by (listener, reason) (rate(sextant_connections_closed_total{@N}[$__rate_interval]))")],
          "ops"),
    Panel("Certificates", "Time until the first certificate of each listener expires, and changes that could not be used. Where there "
          "is no TLS there is nothing.",
          [("{{instance}} {{listener}}", "min by (instance, listener) (sextant_tls_certificate_expiry_timestamp_seconds{@N}) - time()"),
           ("{{instance}} {{listener}}: refused in a day",
            'sum by (instance, listener) (increase(sextant_tls_reloads_total{@N,outcome="refused"}[1d])) > 0')], "s", low=None),
]

BATCHES = [
    Panel("Rows of a batch", "Larger under load is as it should be; 1 under load means that texts do not fit together or the limit "
          "is low. p95 is interpolated between 1, 2, 4, 8 ... rows.",
          [("p95", percentile(0.95, "sextant_batch_rows", "", "@V")),
           ("mean", "sum(rate(sextant_batch_rows_sum{@V}[$__rate_interval])) / (sum(rate(sextant_batch_rows_count{@V}"
                    "[$__rate_interval])) > 0)")]),
    Panel("Tokens of a batch", "Real tokens, padding left out. What one run costs.",
          [("p50", percentile(0.5, "sextant_batch_tokens", "", "@V")), ("p95", percentile(0.95, "sextant_batch_tokens", "", "@V")),
           ("mean", "sum(rate(sextant_batch_tokens_sum{@V}[$__rate_interval])) / (sum(rate(sextant_batch_tokens_count{@V}"
                    "[$__rate_interval])) > 0)")]),
    Panel("Padding", "Places beside real tokens, as a share of all. A packed graph pays for them in attention only; a padded one "
          "pays in full.",
          [("{{model}}@{{version}}", 'sum by (model, version) (rate(sextant_tokens_total{@V,kind="padding"}[$__rate_interval])) / '
                                     "(sum by (model, version) (rate(sextant_tokens_total{@V}[$__rate_interval])) > 0)")],
          "percentunit"),
    Panel("Tokens a second", "Real tokens and padding computed: the figure to compare with `sextant bench`.",
          [("{{kind}}", "sum by (kind) (rate(sextant_tokens_total{@V}[$__rate_interval]))")], "ops", stack=True),
    Panel("Not computed", "Inputs whose vector was in the cache, and that shared the place of an equal one in flight. A fall "
          "after a restart is a cold cache.",
          [("in the cache", "sum(rate(sextant_cache_hits_total{@V}[$__rate_interval]))"),
           ("not in the cache", "sum(rate(sextant_cache_misses_total{@V}[$__rate_interval]))"),
           ("shared", "sum(rate(sextant_coalesced_inputs_total{@V}[$__rate_interval]))")], "ops"),
    Panel("Inputs and batches with trouble", "Batches that failed and were tried in halves: an input breaks the model. Inputs "
          "cut to the longest: clients send more than the model reads.",
          [("batches tried again", "sum(rate(sextant_retried_batches_total{@V}[$__rate_interval]))"),
           ("inputs cut", "sum(rate(sextant_truncated_inputs_total{@V}[$__rate_interval]))"),
           ("unknown tokens", "sum(rate(sextant_unknown_tokens_total{@V}[$__rate_interval]))")], "ops"),
]

VERSIONS = [
    Panel("Who serves what", "Loaded versions and their roles, with how many replicas say so. A version in two roles of one "
          "model, or fewer replicas than there are: they do not agree.",
          [("", "count by (namespace, model, version, role, space, precision, provider) ((sextant_version_role{@V} == 1) "
                "* on (namespace, job, instance, model, version) group_left (space, precision, provider) sextant_version_info)")],
          kind="table", width=12,
          columns={"namespace": "Namespace", "model": "Model", "version": "Version", "role": "Role", "space": "Space",
                   "precision": "Precision", "provider": "Provider", "Value": "Replicas"}),
    Panel("Answered by version", "Share of the vectors by version: the canary's share as it is, and how a rollout went over.",
          [("{{model}}@{{version}}", "sum by (model, version) (rate(sextant_embeddings_total{@V}[$__rate_interval])) / on "
                                     "(model) group_left sum by (model) (rate(sextant_embeddings_total{@M}[$__rate_interval]) > 0)")],
          "percentunit", high=1, width=12, stack=True),
    Panel("Rollout document", "Number of the document each replica serves by. Lines apart for more than the sync interval: one "
          "replica does not follow.",
          [("{{instance}} {{model}}", "max by (instance, model) (sextant_rollout_generation{@M})")], low=None),
    Panel("Failures to follow", "Looks at the repository and loads of versions that failed, in 5 minutes. repository: serving "
          "goes on, changes do not come. load: a version cannot be served there. And files of loaded versions that were changed.",
          [("{{instance}} {{reason}}", "sum by (instance, reason) (increase(sextant_sync_failures_total{@N}[5m]))"),
           ("{{instance}} {{model}}@{{version}}: files changed", "max by (instance, model, version) (sextant_files_changed{@V})")]),
    Panel("Changes", "Changes of roles in an hour, by what made them. A cause other than operator is a figure of the guard.",
          [("{{model}} {{action}}: {{cause}}", "max by (model, action, cause) (increase(sextant_rollout_changes_total{@M}[1h])) > 0")]),
]

ROWS = [
    ("Is it well?", WELL),
    ("Traffic and errors", TRAFFIC),
    ("Latency: where the time goes", LATENCY),
    ("Queue and saturation", QUEUE),
    ("Devices: what computes, and its memory", DEVICES),
    ("Connections and certificates", CONNECTIONS),
    ("Batches and padding", BATCHES),
    ("Versions: who serves what", VERSIONS),
]

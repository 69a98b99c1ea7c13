"""The dashboard *Drift and versions*: has the traffic moved, where to, what do inputs say, and is it a version that did it?"""

from board import Panel

GOOD, WARN, BAD = "green", "orange", "red"
# What the tests alarm at with --drift-expected-run-time as it is, 1e8: ln 1e8, and the z-value that chance passes as rarely.
EVIDENCE, SHIFT = 18.42, 5.44
# Threshold of the alert SextantDriftFleet.
FLEET = 12.8
SAMPLES = "sum by (model, version) (rate(sextant_drift_samples_total{@V}[30m]))"
ALARMING = [(None, GOOD), (1, BAD)]


def alarm(test: str, title: str, says: str) -> Panel:
    return Panel(title, says, [("alarms", f'sum(sextant_drift_alarm{{@V,test="{test}"}})')], kind="stat", width=4, height=5,
                 steps=ALARMING)


def share(total: str) -> str:
    """Of the vectors that counted in the last half hour."""
    return f"sum by (model, version) (rate({total}{{@V}}[30m])) / ({SAMPLES} > 0)"


def pairs(percentile: float, side: str) -> str:
    return (f"histogram_quantile({percentile}, sum by (le, model, version) "
            f'(rate(sextant_shadow_seconds_bucket{{@V,side="{side}"}}[$__rate_interval]))) >= 0')


MOVED = [
    alarm("outside", "Alarm: outside", "Replicas on which more vectors than chance explains lie far from the reference. Read the "
          "row *Outside*, then *Topics* and *Inputs*."),
    alarm("near", "Alarm: near", "Replicas whose traffic repeats itself: a loop in a client, a load test, a lost cache."),
    alarm("shift", "Alarm: shift", "Replicas on which the mix of topics has moved. Nothing need be wrong: read *Topics*."),
    Panel("Vectors counted", "Vectors a second held against a reference, of all replicas. 0 is not \"no drift\": nothing is watched.",
          [("counted", "sum(rate(sextant_drift_samples_total{@V}[5m]))")], "ops", "stat", 4, 5,
          [(None, BAD), (0.001, GOOD)], decimals=2),
    Panel("Held against", "References in use, and when they were made. A version without one is not watched.",
          [("", "count by (model, version, ref, created) (sextant_drift_reference_info{@V})")], kind="table", width=8, height=5,
          columns={"model": "Model", "version": "Version", "ref": "Reference", "created": "Made", "Value": "Replicas"}),
]

TESTS = [
    Panel("Evidence on each replica", "Logarithm of the evidence that traffic moved outside, or nearer. It wanders near 0 while "
          "nothing changes; the dashed line is where the test alarms with the settings as they come.",
          [("{{instance}} {{model}}@{{version}} {{test}}",
            "max by (instance, model, version, test) (sextant_drift_log_evidence{@V})")],
          low=None, width=12, steps=[(None, GOOD), (EVIDENCE, BAD)]),
    Panel("Evidence of all replicas together", "The same from the summed counters, by window. It sees a change that is spread "
          "thin over replicas sooner than any of them. SextantDriftFleet fires above the dashed line.",
          [("{{model}}@{{version}} {{test}} {{window}}", 'sextant:drift_log_evidence{@V,window!="all"}')], low=None, width=12,
          steps=[(None, GOOD), (FLEET, BAD)]),
    Panel("Shift on each replica", "Largest distance of the last windows' mean from the reference's, as a normal value. Above "
          "the dashed line chance is out of the question.",
          [("{{instance}} {{model}}@{{version}}", "max by (instance, model, version) (sextant_drift_shift_z{@V})")], low=None,
          width=12, steps=[(None, GOOD), (SHIFT, BAD)]),
    # A scrape may see a vector counted whose projections are not yet: among few vectors that is a shift of its own.
    Panel("Shift of all replicas together", "The same from the summed counters, by window, of 200 vectors at least. For looking, as the "
          "mix of topics swings with the hour.",
          [("{{model}}@{{version}} {{window}}",
            'sextant:drift_shift_z{@V,window!="all"} and sextant:drift_samples:sum{@V} >= 200')], low=None, width=12,
          steps=[(None, GOOD), (SHIFT, BAD)]),
    Panel("Alarms begun", "How often each test began to alarm in an hour, over all replicas. While nothing changes, days lie between.",
          [("{{model}}@{{version}} {{test}}", "sum by (model, version, test) (increase(sextant_drift_alarms_total{@V}[1h]))")],
          width=24, height=6),
]


def tail(label: str, says: str) -> Panel:
    selector = f'@V,tail="{label}"'
    name = "near: lowest 0.05" if label == "low" else f"outside: tail of {label}"
    return Panel(f"Share {name}", says,
                 [("{{model}}@{{version}}", f"sum by (model, version) (rate(sextant_drift_tail_total{{{selector}}}[30m])) / "
                                            f"({SAMPLES} > 0)"),
                  ("bound {{model}}@{{version}}", f"max by (model, version) (sextant_drift_tail_bound{{{selector}}})")],
                 "percentunit", width=6, dashed="^bound")


OUTSIDE = [
    tail("0.01", "Out-of-distribution share: vectors farther out than 99 % of the reference. Above the dashed bound for long: "
         "strange texts come in. Single ones: `\"ood\": true` in the request."),
    tail("0.05", "Vectors farther out than 95 % of the reference. A rise here and not in 0.01 is a mild change, of wording or length."),
    tail("0.20", "Vectors farther out than 80 % of the reference. A rise here alone: a topic at the edge of the reference grew."),
    tail("low", "Vectors nearer than 95 % of the reference. Above the bound: texts repeat what is known, word for word."),
]

TOPIC = ("sum by (model, version, bin) (rate(sextant_drift_bin_total{@V}[30m])) / on (model, version) group_left () "
         f"({SAMPLES} > 0) - on (model, version, bin) max by (model, version, bin) (sextant_drift_bin_share{{@V}})")
TOPICS = [
    Panel("Topics that grew", "Share of a topic now, less its share in the reference; the ten that grew most. `sextant drift "
          "report` shows their examples, if kept. For looking, not for paging: chance moves small topics.",
          [("topic {{bin}} of {{model}}@{{version}}", f"topk(10, {TOPIC})")], "percentunit", "bargauge", 12, 9, low=None),
    Panel("Topics that shrank", "The ten that shrank most. One that is gone: a client that is gone.",
          [("topic {{bin}} of {{model}}@{{version}}", f"bottomk(10, {TOPIC})")], "percentunit", "bargauge", 12, 9, low=None),
]

INPUTS = [
    Panel("Inputs against the reference", "How far the last inputs lie from the reference's, in standard errors. Beyond 5 it is "
          "no chance; unknown far up is an encoding gone wrong, tokens a change of length.",
          [("{{feature}} {{model}}@{{version}} {{instance}}",
            "max by (feature, model, version, instance) (sextant_drift_input_z{@V})")], low=None, steps=[(None, GOOD), (5, BAD)]),
    Panel("Tokens of an input", "Mean length of the inputs that counted. Texts cut into other pieces show here first.",
          [("{{model}}@{{version}}", share("sextant_drift_tokens_total"))]),
    Panel("Cut, and with unknown tokens", "Shares of the inputs that counted. Cut: longer than the model reads, the rest is "
          "lost. Unknown: the vocabulary has no such text.",
          [("cut {{model}}@{{version}}", share("sextant_drift_truncated_total")),
           ("unknown {{model}}@{{version}}", share("sextant_drift_unknown_total"))], "percentunit"),
]

MODEL = [
    Panel("Probes at load", "Least cosine of a probe's vector to the one the version came with, on each machine. Below 0.9999: "
          "that machine makes other vectors.",
          [("{{instance}} {{model}}@{{version}}", "min by (instance, model, version) (sextant_gate_probe_min_cosine{@V})")],
          low=None, steps=[(None, BAD), (0.9999, GOOD)], decimals=5),
    Panel("Trial: cosine to the stable version", "Of the same input, in pairs. The guard takes a canary back when too many pairs "
          "lie below its bound (--guard-min-cosine).",
          [("p1 {{model}}@{{version}}", "histogram_quantile(0.01, sum by (le, model, version) "
                                        "(rate(sextant_shadow_cosine_bucket{@V}[30m]))) >= -1"),
           ("mean {{model}}@{{version}}", "sum by (model, version) (rate(sextant_shadow_cosine_sum{@V}[30m])) / "
                                          "(sum by (model, version) (rate(sextant_shadow_cosine_count{@V}[30m])) > 0)")],
          low=None, high=1, decimals=4),
    Panel("Trial: neighbours that stay", "Share of the 10 nearest that stay when the query is embedded by the version on trial. "
          "What your search would notice.",
          [("{{model}}@{{version}} {{instance}}",
            "min by (model, version, instance) (sextant_shadow_neighbour_overlap{@V} > 0)")], "percentunit", high=1),
    Panel("Trial: run times of pairs", "The same input on both, one after the other, without queues. This, not the latency of "
          "requests, says which version is slower.",
          [("stable p50 beside {{model}}@{{version}}", pairs(0.5, "stable")), ("{{model}}@{{version}} p50", pairs(0.5, "trial")),
           ("stable p95 beside {{model}}@{{version}}", pairs(0.95, "stable")), ("{{model}}@{{version}} p95", pairs(0.95, "trial"))],
          "s", dashed="^stable"),
    Panel("Trial: length of vectors", "Length as a multiple of the stable version's, before normalising. Far from 1: another "
          "scale, which raw vectors (/embed with normalize false) show to clients.",
          [("{{model}}@{{version}} {{instance}}", "max by (model, version, instance) (sextant_shadow_length_ratio{@V} > 0)")], low=None),
    Panel("Trial: pairs and failures", "Pairs compared a minute, and inputs the version on trial could not run or not within 10 "
          "s. No pairs: nothing is known of it.",
          [("pairs {{model}}@{{version}}",
            "sum by (model, version) (rate(sextant_shadow_cosine_count{@V}[$__rate_interval])) * 60"),
           ("failures {{model}}@{{version}}",
            "sum by (model, version) (rate(sextant_shadow_failures_total{@V}[$__rate_interval])) * 60")], "cpm"),
]

COST = [
    Panel("Cost", "Share of a core that observing takes on each replica. It is kept below 1 %, by counting fewer requests.",
          [("{{instance}} {{model}}@{{version}}",
            "sum by (instance, model, version) (rate(sextant_drift_seconds_total{@V}[$__rate_interval]))")], "percentunit", width=6),
    Panel("Sampling", "Share of the requests that may count. Halved while observing costs too much; drift is found as many times "
          "later.",
          [("{{instance}} {{model}}@{{version}}", "min by (instance, model, version) (sextant_drift_sampling_share{@V})")],
          "percentunit", high=1, width=6),
    Panel("Not observed", "Vectors dropped for want of room, and vectors that are none (not finite, all zeros). One of the "
          "latter is one too many.",
          [("dropped {{model}}@{{version}}",
            "sum by (model, version) (rate(sextant_drift_dropped_total{@V}[$__rate_interval]))"),
           ("none {{model}}@{{version}}",
            "sum by (model, version) (rate(sextant_drift_invalid_total{@V}[$__rate_interval]))")], "ops", width=6),
    Panel("Learning", "Vectors that a reference is being learned from (--learn). The series ends when the reference is made.",
          [("{{instance}} {{model}}@{{version}}", "max by (instance, model, version) (sextant_drift_learned_vectors{@V})")], width=6),
]

ROWS = [
    ("Has the traffic moved?", MOVED),
    ("The tests", TESTS),
    ("Outside: shares of strange vectors, and their bounds", OUTSIDE),
    ("Topics: where to", TOPICS),
    ("Inputs: what the texts say", INPUTS),
    ("Versions: is it the model?", MODEL),
    ("What watching costs", COST),
]

"""The requests that `record.py` sends, per server and case.

Each closes its connection, so that the answer's end is known.
"""

import gzip
import json
import struct
from typing import Any

Json = Any  # JSON of a foreign API, deliberately wrong in the error cases

PIXEL_VALUES = "0123456789abcdefg"  # 0..16, the grey levels of scikit-learn's digits
ZERO, ONE, TWO = (
    [PIXEL_VALUES.index(level) / 16 for level in levels]
    for levels in (
        "005d910000dfaf5003f20b8004c008800580098004b01c7002e5ac00006da000",
        "000cd500000bg900003fg60007fgg200001gg300001gg600001gg600000bga00",
        "0004fc00003gfe00008d8g000016fb00018df10009gg500003dggb500003bg90",
    )
)

MEASURES = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
]
COLUMNS = [
    *(f"mean {measure}" for measure in MEASURES),
    *(f"{measure} error" for measure in MEASURES),
    *(f"worst {measure}" for measure in MEASURES),
]
# fmt: off
TUMOURS = [
    [17.99, 10.38, 122.8, 1001.0, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871,
     1.095, 0.9053, 8.589, 153.4, 0.006399, 0.04904, 0.05373, 0.01587, 0.03003, 0.006193,
     25.38, 17.33, 184.6, 2019.0, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189],
    [20.57, 17.77, 132.9, 1326.0, 0.08474, 0.07864, 0.0869, 0.07017, 0.1812, 0.05667,
     0.5435, 0.7339, 3.398, 74.08, 0.005225, 0.01308, 0.0186, 0.0134, 0.01389, 0.003532,
     24.99, 23.41, 158.8, 1956.0, 0.1238, 0.1866, 0.2416, 0.186, 0.275, 0.08902],
]
# fmt: on


def send(method: str, path: str, body: bytes = b"", /, **headers: str) -> bytes:
    """Give the request's bytes; header names are written with underscores."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:8080", "Accept: */*"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += ["Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def get(path: str, **headers: str) -> bytes:
    """Ask for a page."""
    return send("GET", path, **headers)


def post(path: str, document: Json, **headers: str) -> bytes:
    """Send a JSON document with its Content-Type."""
    return send("POST", path, json.dumps(document).encode(), Content_Type="application/json", **headers)


def v2(rows: list[list[float]], *outputs: str | Json, name: str = "predict", flat: bool = True, **extra: Json) -> Json:
    """Ask an Open Inference server about digit rows."""
    data = [value for row in rows for value in row] if flat else rows
    asked: dict[str, Json] = {"inputs": [{"name": name, "shape": [len(rows), 64], "datatype": "FP32", "data": data}]}
    if outputs:
        asked["outputs"] = [{"name": output} if isinstance(output, str) else output for output in outputs]
    return {**extra, **asked}


def mlserver() -> dict[str, bytes]:
    """MLServer with the digits model of tests/real/servers/mlserver."""
    infer = "/v2/models/digits/infer"
    both = v2([ZERO, ONE], "predict_proba", "predict", id="req-1")
    short = v2([ZERO, ONE], "predict_proba")
    short["inputs"][0] |= {"shape": [2, 32], "data": ZERO}
    untrue = v2([ZERO, ONE], "predict_proba")
    untrue["inputs"][0]["shape"] = [3, 64]
    return {
        "infer-single": post(infer, v2([ZERO], "predict_proba", id="req-1")),
        "infer-single-labels": post(infer, v2([ZERO], "predict", id="req-1")),
        "infer-default-outputs": post(infer, v2([ZERO, ONE], id="req-1")),
        "infer-batch-flat": post(infer, both),
        "infer-batch-nested": post(infer, v2([ZERO, ONE], "predict_proba", "predict", flat=False, id="req-1")),
        "infer-batch-labels-first": post(infer, v2([ZERO, ONE, TWO], "predict", "predict_proba", id="req-1")),
        "infer-no-id": post(infer, v2([ZERO], "predict_proba")),
        "infer-version": post("/v2/models/digits/versions/v1/infer", both),
        "infer-no-content-type": send("POST", infer, json.dumps(both).encode()),
        "infer-gzip-answer": post(
            infer, v2([ZERO, ONE, TWO] * 3, "predict_proba", "predict", id="req-1"), Accept_Encoding="gzip"
        ),
        "infer-gzip-request": send(
            "POST",
            infer,
            gzip.compress(json.dumps(both).encode(), mtime=0),
            Content_Type="application/json",
            Content_Encoding="gzip",
        ),
        "generate": post("/v2/models/digits/generate", both),
        "infer-stream": post("/v2/models/digits/infer_stream", both),
        "error-bad-shape": post(infer, short),
        "error-shape-beside-data": post(infer, untrue),
        "error-unknown-output": post(infer, v2([ZERO], "decision_function")),
        "error-unknown-model": post("/v2/models/nobody/infer", both),
        "error-unknown-version": post("/v2/models/digits/versions/v9/infer", both),
        "error-not-json": send("POST", infer, b"{", Content_Type="application/json"),
        "error-no-inputs": post(infer, {"id": "req-1"}),
        "error-method": get(infer),
        "error-unknown-path": get("/v2/models/digits/explain"),
        "live": get("/v2/health/live"),
        "ready": get("/v2/health/ready"),
        "model-ready": get("/v2/models/digits/ready"),
        "model-version-ready": get("/v2/models/digits/versions/v1/ready"),
        "model-ready-unknown": get("/v2/models/nobody/ready"),
        "metadata": get("/v2"),
        "model-metadata": get("/v2/models/digits"),
        "repository-index": post("/v2/repository/index", {}),
    }


def mlflow() -> dict[str, bytes]:
    """MLflow's scoring server with the models of tests/real/servers/mlflow; some cases name its `--answers`."""
    path = "/invocations"
    split = {"dataframe_split": {"columns": COLUMNS, "data": TUMOURS}}
    records = {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in TUMOURS]}
    csv = ("\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in TUMOURS)]) + "\n").encode()
    return {
        "single": post(path, {"dataframe_split": {"columns": COLUMNS, "data": TUMOURS[:1]}}),
        "dataframe-split": post(path, split),
        "dataframe-split-index": post(path, {"dataframe_split": {"index": [7, 9], **split["dataframe_split"]}}),
        "dataframe-records": post(path, records),
        "instances": post(path, {"instances": records["dataframe_records"]}),
        "inputs": post(path, {"inputs": dict(zip(COLUMNS, map(list, zip(*TUMOURS, strict=True)), strict=True))}),
        "params": post(path, {**split, "params": {"temperature": 0.5}}),
        "csv": send("POST", path, csv, Content_Type="text/csv"),
        "csv-charset": send("POST", path, csv, Content_Type="text/csv; charset=utf-8"),
        "gzip-asked": post(path, split, Accept_Encoding="gzip"),
        "endpoint": post("/endpoints/cancer/invocations", split),
        "error-columns": post(
            path, {"dataframe_split": {"columns": COLUMNS[:7], "data": [row[:7] for row in TUMOURS]}}
        ),
        "error-text-in-row": post(
            path, {"dataframe_split": {"columns": COLUMNS, "data": [["secret", *TUMOURS[0][1:]]]}}
        ),
        "error-ragged": post(path, {"dataframe_split": {"columns": COLUMNS, "data": [TUMOURS[0], [1.0]]}}),
        "error-not-json": send("POST", path, b"{", Content_Type="application/json"),
        "error-unknown-form": post(path, {"rows": TUMOURS}),
        "error-two-forms": post(path, split | records),
        "error-content-type": send("POST", path, csv, Content_Type="text/plain"),
        "error-no-content-type": send("POST", path, json.dumps(split).encode()),
        "error-charset": send("POST", path, csv, Content_Type="text/csv; charset=latin-1"),
        "error-method": get(path),
        "error-unknown-path": get("/metrics"),
        "ping": get("/ping"),
        "health": get("/health"),
        "version": get("/version"),
        "openapi": get("/openapi.json"),
        "labels-single": post(path, {"dataframe_split": {"columns": COLUMNS, "data": TUMOURS[:1]}}),
        "labels-batch": post(path, split),
        "records-single": post(path, {"dataframe_split": {"columns": COLUMNS, "data": TUMOURS[:1]}}),
        "records-batch": post(path, records),
    }


def torchserve() -> dict[str, bytes]:
    """TorchServe with the handler of tests/real/servers/torchserve."""
    path = "/predictions/digits"
    part = (
        b'--cut\r\nContent-Disposition: form-data; name="data"; filename="zero.json"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + json.dumps(ZERO).encode() + b"\r\n--cut--\r\n"
    )
    return {
        "single": post(path, {"instance": ZERO}),
        "single-bare-list": post(path, ZERO),
        "single-no-content-type": send("POST", path, json.dumps(ZERO).encode()),
        "single-put": send("PUT", path, json.dumps(ZERO).encode(), Content_Length=str(len(json.dumps(ZERO)))),
        "single-multipart": send("POST", path, part, Content_Type="multipart/form-data; boundary=cut"),
        "list": post(path, {"instances": [ZERO, ONE]}),
        "list-of-one": post(path, {"instances": [ZERO]}),
        "version": post("/predictions/digits/1.0", {"instance": ZERO}),
        "gzip-asked": post(path, {"instances": [ZERO, ONE, TWO]}, Accept_Encoding="gzip"),
        "invocations": post("/invocations?model_name=digits", {"instance": ZERO}),
        "v1-predict": post("/v1/models/digits:predict", {"instances": [ZERO]}),
        "error-bad-shape": post(path, {"instance": ZERO[:32]}),
        "error-not-json": send("POST", path, b"{", Content_Type="application/json"),
        "error-unknown-model": post("/predictions/nobody", {"instance": ZERO}),
        "error-unknown-version": post("/predictions/digits/9.9", {"instance": ZERO}),
        "error-unknown-path": get("/models/digits"),
        "error-explanations": post("/explanations/digits", {"instance": ZERO}),
        "ping": get("/ping"),
        "metrics": get("/metrics"),
    }


def triton() -> dict[str, bytes]:
    """Triton with the digits model of tests/real/servers/triton."""
    model = "/v2/models/digits"
    infer = f"{model}/infer"

    def asked(rows: list[list[float]], *outputs: str | Json, **extra: Json) -> Json:
        return v2(rows, *outputs, name="input-0", id="req-1", **extra)

    def classes(k: int, name: str = "probabilities") -> Json:
        return {"name": name, "parameters": {"classification": k, "binary_data": False}}

    both = asked([ZERO, ONE], "probabilities", "label")
    raw = struct.pack("<64f", *ZERO)
    head = {
        "inputs": [
            {"name": "input-0", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
        ],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
    }
    binary_head = json.dumps(head).encode()
    short = asked([ZERO], "probabilities")
    short["inputs"][0] |= {"shape": [1, 32], "data": ZERO[:32]}
    untrue = asked([ZERO], "probabilities")
    untrue["inputs"][0]["shape"] = [2, 64]
    elsewhere = {"shared_memory_region": "nowhere", "shared_memory_byte_size": 40}
    return {
        "infer-single": post(infer, asked([ZERO], "probabilities")),
        "infer-batch-flat": post(infer, both),
        "infer-batch-nested": post(infer, asked([ZERO, ONE], "probabilities", "label", flat=False)),
        "infer-batch-labels-first": post(infer, asked([ZERO, ONE, TWO], "label", "probabilities")),
        "infer-default-outputs": post(infer, asked([ZERO, ONE])),
        "infer-no-id": post(infer, v2([ZERO], "probabilities", name="input-0")),
        "infer-version": post(f"{model}/versions/1/infer", both),
        "infer-no-content-type": send("POST", infer, json.dumps(both).encode()),
        "infer-gzip-answer": post(infer, asked([ZERO, ONE, TWO] * 3, "probabilities", "label"), Accept_Encoding="gzip"),
        "infer-gzip-request": send(
            "POST", infer, gzip.compress(json.dumps(both).encode(), mtime=0), Content_Encoding="gzip"
        ),
        "classification-single": post(infer, asked([ZERO], classes(3))),
        "classification-batch": post(infer, asked([ZERO, ONE, TWO], classes(3))),
        "classification-one": post(infer, asked([ZERO, ONE], classes(1))),
        "classification-all": post(infer, asked([ZERO, ONE], classes(10))),
        "classification-more-than-all": post(infer, asked([ZERO, ONE], classes(99))),
        "classification-beside-scores": post(infer, asked([ZERO, ONE], classes(3), "label")),
        "classification-of-label": post(infer, asked([ZERO, ONE], classes(3, "label"))),
        "binary-output-one": post(infer, asked([ZERO], {"name": "probabilities", "parameters": {"binary_data": True}})),
        "binary-output-all": post(infer, asked([ZERO], parameters={"binary_data_output": True})),
        "binary-classification": post(
            infer, asked([ZERO], {"name": "probabilities", "parameters": {"classification": 3, "binary_data": True}})
        ),
        "binary-input": send("POST", infer, binary_head + raw, Inference_Header_Content_Length=str(len(binary_head))),
        "generate": post(f"{model}/generate", {"input-0": ZERO}),
        "generate-stream": post(f"{model}/generate_stream", {"input-0": ZERO}),
        "error-bad-shape": post(infer, short),
        "error-shape-beside-data": post(infer, untrue),
        "error-datatype": post(infer, {"inputs": [{**both["inputs"][0], "datatype": "INT64"}]}),
        "error-unknown-input": post(infer, v2([ZERO], name="nobody")),
        "error-unknown-output": post(infer, asked([ZERO], "nobody")),
        "error-unknown-model": post("/v2/models/nobody/infer", both),
        "error-unknown-version": post(f"{model}/versions/9/infer", both),
        "error-not-json": send("POST", infer, b"{", Content_Type="application/json"),
        "error-no-inputs": post(infer, {"id": "req-1"}),
        "error-method": get(infer),
        "error-unknown-path": get(f"{model}/explain"),
        "error-shared-memory-output": post(infer, asked([ZERO], {"name": "probabilities", "parameters": elsewhere})),
        "live": get("/v2/health/live"),
        "ready": get("/v2/health/ready"),
        "model-ready": get(f"{model}/ready"),
        "model-version-ready": get(f"{model}/versions/1/ready"),
        "model-ready-unknown": get("/v2/models/nobody/ready"),
        "metadata": get("/v2"),
        "model-metadata": get(model),
        "model-version-metadata": get(f"{model}/versions/1"),
        "model-config": get(f"{model}/config"),
        "model-stats": get(f"{model}/stats"),
        "stats": get("/v2/models/stats"),
        "repository-index": post("/v2/repository/index", {}),
        "system-shared-memory": get("/v2/systemsharedmemory/status"),
        "cuda-shared-memory": get("/v2/cudasharedmemory/status"),
        "trace-setting": get("/v2/trace/setting"),
        "logging": get("/v2/logging"),
    }


def kserve() -> dict[str, bytes]:
    """KServe with the three models of tests/real/servers/kserve."""
    predict = "/v1/models/digits:predict"
    infer = "/v2/models/digits/infer"
    rows = {"instances": [ZERO, ONE]}
    both = v2([ZERO, ONE], "probabilities", "label", name="input-0", id="req-1")
    event = {
        "ce_specversion": "1.0",
        "ce_id": "event-1",
        "ce_source": "test",
        "ce_type": "org.example.rows",
    }
    short = v2([ZERO], name="input-0", id="req-1")
    short["inputs"][0] |= {"shape": [1, 32], "data": ZERO[:32]}
    untrue = v2([ZERO], name="input-0", id="req-1")
    untrue["inputs"][0]["shape"] = [2, 64]
    return {
        "v1-single": post(predict, {"instances": [ZERO]}),
        "v1-batch": post(predict, rows),
        "v1-batch-lists": post("/v1/models/digits-lists:predict", rows),
        "v1-single-lists": post("/v1/models/digits-lists:predict", {"instances": [ZERO]}),
        "v1-batch-labels": post("/v1/models/digits-labels:predict", rows),
        "v1-no-content-type": send("POST", predict, json.dumps(rows).encode()),
        "v1-gzip-asked": post(predict, rows, Accept_Encoding="gzip"),
        "v1-cloud-event": post(predict, rows, **event),
        "v1-error-bad-shape": post(predict, {"instances": [ZERO[:32]]}),
        "v1-error-ragged": post(predict, {"instances": [ZERO, [0.5]]}),
        "v1-error-no-instances": post(predict, {"rows": [ZERO]}),
        "v1-error-not-json": send("POST", predict, b"{", Content_Type="application/json"),
        "v1-error-unknown-model": post("/v1/models/nobody:predict", rows),
        "v1-error-explain": post("/v1/models/digits:explain", rows),
        "v1-models": get("/v1/models"),
        "v1-model": get("/v1/models/digits"),
        "v2-single": post(infer, v2([ZERO], name="input-0", id="req-1")),
        "v2-batch-flat": post(infer, both),
        "v2-batch-nested": post(infer, v2([ZERO, ONE], name="input-0", flat=False, id="req-1")),
        "v2-no-id": post(infer, v2([ZERO], name="input-0")),
        "v2-no-content-type": send("POST", infer, json.dumps(both).encode()),
        "v2-error-bad-shape": post(infer, short),
        "v2-error-shape-beside-data": post(infer, untrue),
        "v2-error-not-json": send("POST", infer, b"{", Content_Type="application/json"),
        "v2-error-no-inputs": post(infer, {"id": "req-1"}),
        "v2-error-unknown-model": post("/v2/models/nobody/infer", both),
        "v2-error-version": post("/v2/models/digits/versions/1/infer", both),
        "v2-error-explain": post("/v2/models/digits/explain", both),
        "v2-metadata": get("/v2"),
        "v2-models": get("/v2/models"),
        "v2-model-metadata": get("/v2/models/digits"),
        "v2-model-ready": get("/v2/models/digits/ready"),
        "v2-model-ready-unknown": get("/v2/models/nobody/ready"),
        "v2-live": get("/v2/health/live"),
        "v2-ready": get("/v2/health/ready"),
        "alive": get("/"),
    }


def bentoml() -> dict[str, bytes]:
    """BentoML with the service of tests/real/servers/bentoml."""
    rows = [ZERO, ONE]
    return {
        "classify-single": post("/classify", {"x": [ZERO]}),
        "classify-batch": post("/classify", {"x": rows}),
        "classify-gzip-asked": post("/classify", {"x": [ZERO, ONE, TWO] * 3}, Accept_Encoding="gzip"),
        "classify-no-content-type": send("POST", "/classify", json.dumps({"x": rows}).encode()),
        "classify-json-single": post("/classify_json", {"rows": [ZERO]}),
        "classify-json-batch": post("/classify_json", {"rows": rows}),
        "error-bad-shape": post("/classify", {"x": [ZERO[:32]]}),
        "error-not-json": send("POST", "/classify", b"{", Content_Type="application/json"),
        "error-unknown-field": post("/classify", {"rows": rows}),
        "error-unknown-path": post("/nobody", {"x": rows}),
        "error-method": get("/classify"),
        "livez": get("/livez"),
        "readyz": get("/readyz"),
        "healthz": get("/healthz"),
    }


def ray() -> dict[str, bytes]:
    """Ray Serve with the deployment of tests/real/servers/ray."""
    return {
        "single": post("/digits", {"instances": [ZERO]}),
        "batch": post("/digits", {"instances": [ZERO, ONE]}),
        "batch-longer": post("/digits", {"instances": [ZERO, ONE, TWO] * 20}),
        "gzip-asked": post("/digits", {"instances": [ZERO, ONE, TWO] * 3}, Accept_Encoding="gzip"),
        "request-id": post("/digits", {"instances": [ZERO]}, X_Request_ID="req-1"),
        "any-path-below": post("/digits/nobody", {"instances": [ZERO]}),
        "error-bad-shape": post("/digits", {"instances": [ZERO[:32]]}),
        "error-not-json": send("POST", "/digits", b"{", Content_Type="application/json"),
        "error-unknown-path": post("/nobody", {"instances": [ZERO]}),
        "error-method": get("/digits"),
        "health": get("/-/healthz"),
        "routes": get("/-/routes"),
    }


def tensorflow_serving() -> dict[str, bytes]:
    """TensorFlow Serving's REST API; the answers in this folder are written by hand from its documentation."""
    model = "/v1/models/digits"
    rows = {"instances": [ZERO, ONE]}
    examples = {"signature_name": "classify", "examples": [{"pixels": ZERO}, {"pixels": ONE}]}
    plain = "/v1/models/half_plus_three"
    points = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    return {
        "predict-row-single": post(f"{model}:predict", {"instances": [ZERO]}),
        "predict-row-batch": post(f"{model}:predict", rows),
        "predict-row-objects": post(f"{model}:predict", {"instances": [{"pixels": ZERO}, {"pixels": ONE}]}),
        "predict-row-two-class": post("/v1/models/tumours:predict", {"instances": TUMOURS}),
        "predict-row-values": post(f"{plain}:predict", {"instances": [1.0, 2.0, 5.0]}),
        "predict-row-nan": post(f"{model}:predict", rows),
        "predict-row-bytes": post(f"{model}:predict", {"signature_name": "bytes", **rows}),
        "predict-columnar": post(f"{model}:predict", {"inputs": [ZERO, ONE]}),
        "predict-columnar-named": post(f"{model}:predict", {"inputs": {"pixels": [ZERO, ONE]}}),
        "predict-signature": post(f"{model}:predict", {"signature_name": "serving_default", **rows}),
        "predict-version": post(f"{model}/versions/1:predict", rows),
        "predict-label": post(f"{model}/labels/stable:predict", rows),
        "predict-no-content-type": send("POST", f"{model}:predict", json.dumps(rows).encode()),
        "classify": post(f"{model}:classify", examples),
        "classify-key-results": post(f"{model}:classify", examples),
        "classify-no-labels": post(f"{model}:classify", examples),
        "classify-context": post(
            f"{model}:classify", {"context": {"pixels": ZERO}, "examples": [{"name": "first"}, {"name": "second"}]}
        ),
        "classify-version": post(f"{model}/versions/1:classify", examples),
        "regress": post(f"{plain}:regress", points),
        "regress-key-result": post(f"{plain}:regress", points),
        "regress-not-finite": post(f"{plain}:regress", points),
        "error-unknown-model": post("/v1/models/half:predict", {"instances": [1.0, 5.0]}),
        "error-not-json": send("POST", f"{model}:predict", b"{", Content_Type="application/json"),
        "error-both-forms": post(f"{model}:predict", {"instances": [ZERO], "inputs": [ZERO]}),
        "error-malformed-path": post(f"{model}:explain", rows),
        "status": get(model),
        "version-status": get(f"{model}/versions/1"),
        "metadata": get(f"{model}/metadata"),
    }


def llama() -> dict[str, bytes]:
    """llama.cpp's server with the model of tests/real/servers/llama."""
    said: Json = {"model": "tiny", "temperature": 0, "max_tokens": 4}
    chat = {**said, "messages": [{"role": "user", "content": "my locker code is "}]}
    text = {**said, "prompt": "my locker code is "}
    respond = {"model": "tiny", "temperature": 0, "max_output_tokens": 4, "input": "my locker code is "}
    stream: Json = {"stream": True, "stream_options": {"include_usage": True}}
    chats, texts = "/v1/chat/completions", "/v1/completions"
    return {
        "chat": post(chats, chat),
        "chat-logprobs": post(chats, {**chat, "logprobs": True, "top_logprobs": 3}),
        "chat-two": post(chats, {**chat, "n": 2}),
        "chat-end": post(chats, {**chat, "max_tokens": 12, "logprobs": True}),
        "chat-stream": post(chats, {**chat, **stream}),
        "chat-stream-logprobs": post(chats, {**chat, **stream, "logprobs": True, "top_logprobs": 3}),
        "chat-stream-two": post(chats, {**chat, **stream, "n": 2}),
        "chat-error": post(chats, {**chat, "top_logprobs": 3}),
        "completion": post(texts, text),
        "completion-logprobs": post(texts, {**text, "logprobs": 3}),
        "completion-list": post(texts, {**text, "prompt": ["my locker code is ", "hello"], "logprobs": 1}),
        "completion-stream": post(texts, {**text, **stream, "logprobs": 3}),
        "completion-stream-list": post(texts, {**text, **stream, "prompt": ["my locker code is ", "hello"]}),
        "responses": post("/v1/responses", respond),
        "responses-stream": post("/v1/responses", {**respond, "stream": True}),
        "health": get("/health"),
    }


CASES: dict[str, dict[str, bytes]] = {
    "llama": llama(),
    "mlserver": mlserver(),
    "mlflow": mlflow(),
    "torchserve": torchserve(),
    "triton": triton(),
    "kserve": kserve(),
    "bentoml": bentoml(),
    "ray": ray(),
    "tensorflow_serving": tensorflow_serving(),
}

"""Protobuf messages of the Open Inference protocol, read by the protobuf library; the `[grpc]` extra.

They are made from a descriptor (`protos/open_inference.binpb`), not from generated code, and live in a pool of their
own. Generated code is bound to the version of the library that it was generated with, and the stubs of tritonclient,
MLServer and Guard cannot be imported into one process: each puts `inference.ModelInferRequest` into the one pool that
all share, which the library refuses.

The classes below say what the messages hold: the library's are made when they are asked for, and have no types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module, resources
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")


class Repeated(Protocol[T]):
    """A repeated field."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __iter__(self) -> Iterator[T]:
        """Go through them in order."""
        ...

    def __getitem__(self, index: int) -> T:
        """Return one."""
        ...

    def append(self, value: T) -> None:
        """Add a scalar."""
        ...

    def extend(self, values: Iterable[T]) -> None:
        """Add scalars, or copies of messages."""
        ...

    def add(self) -> T:
        """Add an empty message and return it."""
        ...


class Message(Protocol):
    """What every message can do."""

    def SerializeToString(self) -> bytes:  # noqa: N802  # the library's names, here and below
        """Return the message's bytes."""
        ...

    def DiscardUnknownFields(self) -> None:  # noqa: N802
        """Leave out what no field of the message or of one inside it stands for."""
        ...

    def HasField(self, name: str) -> bool:  # noqa: N802
        """Say whether a message inside it is set."""
        ...

    def ClearField(self, name: str) -> None:  # noqa: N802
        """Unset a field."""
        ...

    def ListFields(self) -> list[tuple[Any, object]]:  # noqa: N802  # Any: a field's descriptor
        """Return (descriptor, value) of what is set and not empty."""
        ...


class InferParameter(Message, Protocol):
    """A parameter: one of five kinds of value."""

    bool_param: bool
    int64_param: int
    string_param: str
    double_param: float
    uint64_param: int

    def WhichOneof(self, name: str) -> str | None:  # noqa: N802
        """Return the name of the field that is set."""
        ...

    def CopyFrom(self, other: InferParameter) -> None:  # noqa: N802
        """Become a copy of another parameter."""
        ...


class Parameters(Protocol):
    """A map of parameters, which makes what it is asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Go through their names."""
        ...

    def __getitem__(self, key: str) -> InferParameter:
        """Return one."""
        ...

    def __delitem__(self, key: str) -> None:
        """Leave one out."""
        ...


class InferTensorContents(Message, Protocol):
    """A tensor's members, one by one, in the field of their kind."""

    def CopyFrom(self, other: InferTensorContents) -> None:  # noqa: N802
        """Become a copy of others."""
        ...


class Tensor(Message, Protocol):
    """An input or an output tensor."""

    name: str
    datatype: str

    @property
    def shape(self) -> Repeated[int]:
        """Dimensions, the batch first."""
        ...

    @property
    def parameters(self) -> Parameters:
        """Its parameters."""
        ...

    @property
    def contents(self) -> InferTensorContents:
        """Its members, unless they stand raw in the message."""
        ...


class RequestedOutput(Message, Protocol):
    """A tensor that is asked for."""

    name: str

    @property
    def parameters(self) -> Parameters:
        """Its parameters."""
        ...


class ModelInferRequest(Message, Protocol):
    """A request."""

    model_name: str
    model_version: str
    id: str

    @property
    def parameters(self) -> Parameters:
        """Its parameters."""
        ...

    @property
    def inputs(self) -> Repeated[Tensor]:
        """Input tensors."""
        ...

    @property
    def outputs(self) -> Repeated[RequestedOutput]:
        """Which outputs are asked for; none for all."""
        ...

    @property
    def raw_input_contents(self) -> Repeated[bytes]:
        """Members of each input, little-endian; none when they stand in the tensors."""
        ...


class ModelInferResponse(Message, Protocol):
    """An answer."""

    model_name: str
    model_version: str
    id: str

    @property
    def parameters(self) -> Parameters:
        """Its parameters."""
        ...

    @property
    def outputs(self) -> Repeated[Tensor]:
        """Output tensors."""
        ...

    @property
    def raw_output_contents(self) -> Repeated[bytes]:
        """Members of each output, little-endian; none when they stand in the tensors."""
        ...

    def CopyFrom(self, other: ModelInferResponse) -> None:  # noqa: N802
        """Become a copy of another answer."""
        ...


def load() -> None:
    """Make the messages ready.

    Raises:
        ImportError: the library is not installed.
    """
    _classes()


def infer_request(data: bytes) -> ModelInferRequest | None:
    """Read a request; None when it is none."""
    return cast("ModelInferRequest | None", _read("ModelInferRequest", data))


def infer_response(data: bytes) -> ModelInferResponse | None:
    """Read an answer; None when it is none."""
    return cast("ModelInferResponse | None", _read("ModelInferResponse", data))


def new_response() -> ModelInferResponse:
    """Return an empty answer."""
    return cast("ModelInferResponse", _classes()["ModelInferResponse"]())


def model_ready(data: bytes) -> tuple[str, str] | None:
    """Return (model, version) of a request whether a model is ready; None when it is none."""
    found = cast("Any", _read("ModelReadyRequest", data))  # Any: a message of the library
    return None if found is None else (found.name, found.version)


def model_ready_request(name: str, version: str) -> bytes:
    """Return what `model_ready` reads."""
    return cast("bytes", _classes()["ModelReadyRequest"](name=name, version=version).SerializeToString())


def health_service(data: bytes) -> str | None:
    """Return the service that a health check asks for; None when it is none."""
    found = cast("Any", _read("HealthCheckRequest", data))  # Any: same
    return None if found is None else found.service


def truth(name: str, data: bytes) -> bool | None:
    """Return what a `ServerLiveResponse`, `ServerReadyResponse` or `ModelReadyResponse` says; None when it is none."""
    found = cast("Any", _read(name, data))  # Any: same
    return None if found is None else found.live if name == "ServerLiveResponse" else found.ready


def truth_message(value: bool) -> bytes:
    r"""Return the answer that `truth` reads; true in the first field, of all three the same.

    >>> truth("ModelReadyResponse", truth_message(True)), truth("ServerLiveResponse", truth_message(False))
    (True, False)
    """
    return b"\x08\x01" if value else b""


def health_message(serving: bool) -> bytes:
    """Return the answer to a health check: 1 is SERVING, 2 is NOT_SERVING."""
    return b"\x08\x01" if serving else b"\x08\x02"


def stream_answer(answer: bytes) -> bytes:
    """Return a message of a stream that carries an answer, marked as Triton marks the last one to a request."""
    found: Any = _classes()["ModelStreamInferResponse"]()  # Any: same
    found.infer_response.ParseFromString(answer)
    found.infer_response.parameters["triton_final_response"].bool_param = True
    return cast("bytes", found.SerializeToString())


def stream_error(message: str, id_: str) -> bytes:
    """Return a message of a stream that says why a request has none, and which one it was."""
    found: Any = _classes()["ModelStreamInferResponse"](error_message=message)  # Any: same
    if id_:
        found.infer_response.id = id_
    return cast("bytes", found.SerializeToString())


def _read(name: str, data: bytes) -> object:
    """Read a message; None for bytes that are none."""
    try:
        return cast("object", _classes()[name].FromString(data))
    except _decode_error():
        return None


@cache
def _decode_error() -> type[Exception]:
    return cast("type[Exception]", import_module("google.protobuf.message").DecodeError)


@cache
def _classes() -> Mapping[str, Any]:  # Any: the library's classes, here and below
    descriptors: Any = import_module("google.protobuf.descriptor_pb2")
    pools: Any = import_module("google.protobuf.descriptor_pool")
    made: Any = import_module("google.protobuf.message_factory")
    data = resources.files("guard.wire").joinpath("protos", "open_inference.binpb").read_bytes()
    (file,) = descriptors.FileDescriptorSet.FromString(data).file
    pool = pools.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {one.name: made.GetMessageClass(pool.FindMessageTypeByName(f"inference.{one.name}")) for one in _each(file)}


def _each(file: Any) -> Iterator[Any]:  # Any: a file's descriptor
    return iter(file.message_type)

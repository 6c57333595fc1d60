"""torchscript.py: the tensors of a TorchScript archive, read as data: nothing in it is run.

OpenAI publishes CLIP as such archives: a zip of code, of one raw file for each tensor's storage,
and of ``data.pkl``, which says where in the module's tree each tensor is. `torch.jit.load` would
compile the code, and unpickling could call anything. Here `pickletools` takes the pickle apart,
and the few instructions that TorchScript writes are followed with plain lists, dicts and tuples;
what they name is compared, never imported or called.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MARK = object()


class _Name(NamedTuple):
    """A class or function that the pickle names."""

    full: str


class _Storage(NamedTuple):
    """Raw numbers: their kind, their file in the archive, how many."""

    dtype: torch.dtype
    key: str
    numel: int


class _View(NamedTuple):
    """A tensor on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unreadable(Exception):
    """What the archive holds that this reader does not follow."""


def is_torchscript(path: Path) -> bool:
    """Is it a TorchScript archive (and not what `torch.save` writes)?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All parameters and buffers by their names in the module's tree, on the CPU.

    Raises:
        ModelError: the archive is damaged, or is not as TorchScript writes them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (pickle,) = [
                n for n in archive.namelist() if n.count("/") == 1 and n[-9:] == "/data.pkl"
            ]
            folder = pickle.removesuffix("data.pkl")
            order = (
                archive.read(f"{folder}byteorder") if _has(archive, f"{folder}byteorder") else b""
            )
            if order == b"big":
                raise _Unreadable("its numbers are big-endian")
            root = _follow(archive.read(pickle))
            read: dict[_Storage, Tensor] = {}
            return {
                name: _tensor(view, archive, folder, read) for name, view in _views(root, "", set())
            }
    except _Unreadable as error:
        raise ModelError(f"{path}: not as TorchScript writes its archives: {error}.") from error
    except Exception as error:  # a damaged pickle or zip raises anything
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ModelError(f"{path}: a damaged TorchScript archive ({reason}).") from error


def _has(archive: zipfile.ZipFile, name: str) -> bool:
    return name in archive.NameToInfo


def _follow(pickle: bytes) -> Any:
    """What the pickle builds: modules as dicts, tensors as views, all else as plain values."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = max(i for i, value in enumerate(stack) if value is _MARK)
        values = stack[start + 1 :]
        del stack[start:]
        return values

    argument: Any
    for operation, argument, _ in pickletools.genops(pickle):
        name = operation.name
        if name in ("PROTO", "FRAME"):
            pass
        elif name == "STOP":
            return stack.pop()
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "APPENDS":
            values = since_mark()
            stack[-1].extend(values)
        elif name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "SETITEMS":
            values = since_mark()
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "NEWOBJ":
            del stack[-2:]  # the class and its arguments: an object is its attributes
            stack.append({})
        elif name == "BUILD":
            attributes = stack.pop()
            if isinstance(attributes, dict):
                stack[-1].update(attributes)
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        else:
            raise _Unreadable(f"it uses the instruction {name}")
    raise _Unreadable("it does not end")


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
)


def _call(function: _Name, arguments: tuple[Any, ...]) -> Any:
    """What a call that TorchScript writes stands for; no function is called."""
    name = function.full
    if name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        return _View(storage, offset, shape, strides)
    if name == "torch._utils._rebuild_parameter":
        return arguments[0]
    if name == "collections.OrderedDict":
        return {}
    if name.startswith("torch.jit._pickle."):  # lists, and values with the name of their type
        return arguments[0]
    if name == "torch.device":
        return None
    raise _Unreadable(f"it calls {name}")


def _storage(identity: Any) -> _Storage:
    word, kind, key, _device, count = identity
    dtype = _STORAGES.get(kind.full.removeprefix("torch."))
    if word != "storage" or dtype is None:
        raise _Unreadable(f"it holds a {kind.full}")
    return _Storage(dtype, str(key), int(count))


def _views(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, _View]]:
    """The tensors below a module, each once, with their names."""
    if isinstance(value, _View):
        yield name, value
    elif isinstance(value, dict) and id(value) not in seen:
        seen.add(id(value))  # no module is visited twice: the tree may be no tree
        for key, child in value.items():
            yield from _views(child, f"{name}.{key}" if name else str(key), seen)


def _tensor(
    view: _View, archive: zipfile.ZipFile, folder: str, read: dict[_Storage, Tensor]
) -> Tensor:
    storage = view.storage
    if storage not in read:
        member = archive.NameToInfo[f"{folder}data/{storage.key}"]
        size = storage.numel * torch.empty((), dtype=storage.dtype).element_size()
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != size:
            raise _Unreadable(f"data/{storage.key} is not {size:,} plain bytes")
        numbers = bytearray(archive.read(member))
        empty = torch.empty(0, dtype=storage.dtype)
        read[storage] = torch.frombuffer(numbers, dtype=storage.dtype) if numbers else empty
    shape, strides = tuple(view.shape), tuple(view.strides)
    if min((*shape, *strides, view.offset), default=0) < 0 or math.prod(shape) > storage.numel:
        raise _Unreadable(f"a tensor of shape {shape} lies outside its {storage.numel:,} numbers")
    return torch.as_strided(read[storage], shape, strides, view.offset)

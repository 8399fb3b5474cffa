"""octavo.py - eight-bit attention from Python: quantise, cache, decode, select. One file over the public C API (ctypes, DLPack).

    import torch, octavo
    device = octavo.Device("cuda:0")                                   # or "cpu"
    cache = device.cache(kv_heads=8, head_dim=128, k="e4m3x2", v="int8", max_tokens=131072)
    sequence = cache.sequence()
    cache.append([sequence], k, v)                                     # [1, tokens, kv_heads, head_dim], any float dtype
    result = cache.decode([sequence], q, select="mass", epsilon=0.1)   # q [1, q_tokens, q_heads, head_dim]
    print(result.out, result.skip_ratio, result.bytes_read)
    codes, scales = device.quantize(x, "e4m3", per="token")            # x [rows, cols]
    y = device.dequantize(codes, scales, "e4m3", per="token")
    exact = device.decode(q, k, v)                                     # the caller's own tensors, in place
    out = device.prefill(q, k, v, precision="fp8").out                 # many queries; causal, or mask="full"

Tensors are PyTorch's, NumPy's or anything else on the host that speaks DLPack; they are read and written in place, never copied. Results
are made like the input: PyTorch tensors on its device, or NumPy arrays. On a GPU everything runs on PyTorch's current stream, and after a
first call of the same shape a call can be captured in a CUDA graph (decode and prefill; the cache is then the caller's to leave as it is).
A Device has one workspace: use it from one stream at a time. The shared library is looked for in $OCTAVO_LIBRARY, in the build folder
beside this file, and then where the system keeps its libraries.
A failure raises octavo.Error with the library's own sentence.
SPDX-License-Identifier: Apache-2.0"""
import ctypes
import ctypes.util
import os
import pathlib
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p

__all__ = ["Error", "Device", "Cache", "Decoded", "version"]

MAX_DIMS, MAX_PLANES = 6, 3
CPU, CUDA = 0, 1
DTYPES = {"f64": 1, "f32": 2, "f16": 3, "bf16": 4, "e4m3": 5, "e5m2": 6, "int8": 7, "uint8": 8, "int32": 9, "int64": 10}
GRANULARITY = {"tensor": 0, "token": 1, "channel": 2, "block": 3}
K_FORMATS = {"bf16": 1, "f16": 2, "e4m3": 3, "e5m2": 4, "int8": 5, "e4m3x2": 6, "e5m2x2": 7, "int8x2": 8, "int4x2": 9, "f32": 10}
V_FORMATS = {"bf16": 1, "f16": 2, "e4m3": 3, "int8": 4, "f32": 5}
ATTENTION = {"exact": 0, "fp8": 1, "sage1": 2, "sage2": 3}
MASKS = {"causal": 0, "full": 1}
PREFILL_SCALES = {"block": 0, "token": 1, "warp": 2, "thread": 3, "head": 4, "tensor": 5}
SPLITS = {"fill": 0, "fixed": 1}
NESTED = {"e4m3": "e4m3x2", "e5m2": "e5m2x2"}
EVERYTHING = ("lse", "kept", "skip_ratio", "dropped_mass", "bytes_read")
RULES = {"none": 0, "base": 1, "delta": 2, "mass": 3, "certified": 4}
TORCH_NAMES = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2"}
OTHER_NAMES = {"int8": "int8", "uint8": "uint8", "int32": "int32", "int64": "int64"}


class Error(RuntimeError):
    """A call that the library refused; `status` is its octavo_status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


# ---- the structs of include/octavo ----------------------------------------------------------------------------------


class _Tensor(Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int32), ("device_kind", c_int32), ("device_index", c_int32), ("ndim", c_int32),
                ("shape", c_int64 * MAX_DIMS), ("strides", c_int64 * MAX_DIMS)]


class _Sized(Structure):
    """A struct that begins with its own size, as the INIT macros make it."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


class _Exec(_Sized):
    _fields_ = [("struct_size", c_size_t), ("device", c_void_p), ("stream", c_void_p), ("workspace", c_void_p), ("workspace_bytes", c_size_t),
                ("parallel_for", c_void_p), ("parallel_user", c_void_p), ("threads", c_int32), ("device_status", c_void_p)]


class _Section(Structure):
    _fields_ = [("data", c_void_p), ("page_bytes", c_int64), ("sequence_bytes", c_int64), ("head_bytes", c_int64), ("token_bytes", c_int64)]


class _View(_Sized):
    _fields_ = [("struct_size", c_size_t), ("k_format", c_int32), ("v_format", c_int32), ("device_kind", c_int32), ("k_residual_exponent", c_int32),
                ("kv_heads", c_int32), ("head_dim", c_int32), ("v_dim", c_int32), ("block_tokens", c_int32), ("sub_block_tokens", c_int32), ("batch", c_int64),
                ("max_tokens", c_int64), ("lengths", c_void_p), ("sequences", c_void_p), ("page_table", c_void_p), ("page_table_stride", c_int64),
                ("pages", c_int64), ("k", _Section * MAX_PLANES), ("k_scale", _Section), ("k_norm", _Section), ("v", _Section),
                ("v_scale", _Section), ("v_mean", _Section), ("v_mean_scale", _Section), ("k_mean", c_void_p), ("v_channel_scale", c_void_p)]


class _PageConfig(_Sized):
    _fields_ = [("struct_size", c_size_t), ("k_format", c_int32), ("v_format", c_int32), ("kv_heads", c_int32), ("head_dim", c_int32),
                ("v_dim", c_int32), ("block_tokens", c_int32), ("sub_block_tokens", c_int32)]


class _CacheConfig(_Sized):
    _fields_ = [("struct_size", c_size_t), ("page", _PageConfig), ("groups", c_void_p), ("group_count", c_int32), ("layers", c_int32),
                ("max_sequences", c_int32), ("max_tokens", c_int64), ("pages", c_int64), ("memory", c_void_p), ("memory_bytes", c_size_t)]


class _Decode(_Sized):
    _fields_ = [("struct_size", c_size_t), ("q", _Tensor), ("kv", POINTER(_View)), ("softmax_scale", c_float), ("soft_cap", c_float),
                ("window", c_int64), ("sink_tokens", c_int64), ("sink_logits", c_void_p), ("precision", c_int32), ("select", c_int32),
                ("compensate", c_int32), ("delta", c_float), ("epsilon", c_float), ("thresholds", c_void_p), ("keep_first_blocks", c_int32), ("keep_last_blocks", c_int32),
                ("splits", c_int32), ("out", _Tensor), ("lse", c_void_p), ("kept", c_void_p), ("skip_ratio", c_void_p), ("skip_ratio_first", c_void_p),
                ("dropped_mass", c_void_p), ("bytes_read", c_void_p)]


class _Prefill(_Sized):
    _fields_ = [("struct_size", c_size_t), ("q", _Tensor), ("kv", POINTER(_View)), ("q_lengths", c_void_p), ("mask", c_int32),
                ("softmax_scale", c_float), ("soft_cap", c_float), ("window", c_int64), ("sink_tokens", c_int64), ("sink_logits", c_void_p),
                ("precision", c_int32), ("scales", c_int32), ("flags", c_uint32), ("out", _Tensor), ("lse", c_void_p),
                ("q_amax", c_void_p), ("k_amax", c_void_p), ("v_amax", c_void_p)]


class _Quantize(_Sized):
    _fields_ = [("struct_size", c_size_t), ("x", _Tensor), ("codes", _Tensor), ("scales", c_void_p), ("granularity", c_int32),
                ("scale_kind", c_int32), ("scale_source", c_int32), ("block_rows", c_int64), ("block_cols", c_int64), ("saturated", c_void_p),
                ("underflowed", c_void_p)]


class _Dequantize(_Sized):
    _fields_ = [("struct_size", c_size_t), ("codes", _Tensor), ("x", _Tensor), ("scales", c_void_p), ("granularity", c_int32),
                ("block_rows", c_int64), ("block_cols", c_int64)]


# ---- the library ----------------------------------------------------------------------------------------------------


def _find_library():
    given = os.environ.get("OCTAVO_LIBRARY")
    beside = pathlib.Path(__file__).resolve().parent.parent / "build" / "liboctavo.so"
    name = given or (str(beside) if beside.exists() else ctypes.util.find_library("octavo"))
    if not name:
        raise ImportError("liboctavo was not found: build it, install it, or set OCTAVO_LIBRARY to its path")
    return ctypes.CDLL(name)


_library = _find_library()
_library.octavo_version.restype = c_char_p
_library.octavo_last_error.restype = c_char_p
_library.octavo_status_text.restype = c_char_p
_library.octavo_kv_view_units.restype = c_int64
_library.octavo_scale_count.restype = c_int64
_library.octavo_scale_count.argtypes = [c_int32, c_int64, c_int64, c_int64, c_int64]
_library.octavo_device_release.argtypes = [c_void_p, c_void_p, c_size_t]
_library.octavo_device_release.restype = None
for _name in ("octavo_context_destroy", "octavo_device_close", "octavo_kvcache_destroy"):
    getattr(_library, _name).argtypes = [c_void_p]
    getattr(_library, _name).restype = None


def version():
    """The library's version, as "0.1.0"."""
    return _library.octavo_version().decode()


def _call(name, *arguments):
    status = getattr(_library, name)(*arguments)
    if status != 0:
        raise Error(status, _library.octavo_last_error().decode())


# ---- tensors --------------------------------------------------------------------------------------------------------


def _is_torch(x):
    return type(x).__module__.split(".")[0] == "torch"


def _through_dlpack(x, tensor):
    capsule = x.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]
    _call("octavo_tensor_from_dlpack", c_void_p(pointer(capsule, b"dltensor")), byref(tensor))
    return capsule


def _tensor(x, dtype=None):
    """A view of x, and what must live as long as it. `dtype` names what the bytes are where x's own type cannot say so."""
    tensor = _Tensor()
    keep = x
    if _is_torch(x):  # also for types that DLPack has no word for
        name = str(x.dtype).split(".")[-1]
        tensor.data, tensor.ndim = x.data_ptr(), x.dim()
        tensor.dtype = DTYPES[TORCH_NAMES.get(name) or OTHER_NAMES[name]]
        tensor.device_kind, tensor.device_index = (CUDA, x.device.index or 0) if x.is_cuda else (CPU, 0)
        for i in range(x.dim()):
            tensor.shape[i], tensor.strides[i] = x.shape[i], x.stride(i)
    else:
        keep = (x, _through_dlpack(x, tensor))
        if tensor.device_kind != CPU:
            raise TypeError(f"{type(x).__name__} lies on a GPU, where results are made as PyTorch tensors: pass torch.from_dlpack(x)")
    if dtype is not None:
        tensor.dtype = DTYPES[dtype]
    return tensor, keep


def _empty(like, shape, dtype):
    """A new array of the library's dtype, of like's kind and on its device."""
    if _is_torch(like):
        import torch
        names = {ours: theirs for theirs, ours in TORCH_NAMES.items()} | OTHER_NAMES
        return torch.empty(shape, dtype=getattr(torch, names[dtype]), device=like.device)
    import numpy
    kinds = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "uint16", "e4m3": "uint8", "e5m2": "uint8"}
    return numpy.empty(shape, dtype=kinds.get(dtype, dtype))


def _address(x):
    if x is None:
        return None
    return x.data_ptr() if _is_torch(x) else x.ctypes.data


def _dtype_name(tensor):
    return next(name for name, value in DTYPES.items() if value == tensor.dtype)


# ---- what is offered ------------------------------------------------------------------------------------------------


class Decoded:
    """What a decode call returns: out [batch, q_tokens, q_heads, v_dim], lse [batch, q_heads, q_tokens], kept [batch, kv_heads, units]
    (0 unseen, 1 kept, 2 dropped), skip_ratio and bytes_read [batch, kv_heads], dropped_mass [batch, q_heads]; of a prefill out and lse.
    What `results` did not ask for is None."""

    __slots__ = ("out",) + EVERYTHING

    def __init__(self, out):
        self.out = out
        for name in EVERYTHING:
            setattr(self, name, None)


class Device:
    """A device and its memory: "cpu" or "cuda:N"."""

    def __init__(self, name="cpu", threads=0):
        self._context, self._device, self._workspace, self._workspace_bytes = c_void_p(), c_void_p(), c_void_p(), 0
        self.name, self.threads, self._status = name, threads, c_void_p()
        _call("octavo_context_create", None, byref(self._context))
        _call("octavo_device_open", self._context, name.encode(), byref(self._device))
        if name.startswith("cuda"):
            _call("octavo_device_allocate", self._device, c_size_t(ctypes.sizeof(c_int32)), byref(self._status))
            _call("octavo_device_upload", byref(self._exec(None)), self._status, byref(c_int32(0)), c_size_t(ctypes.sizeof(c_int32)))

    def __del__(self):
        if getattr(self, "_device", None):
            _library.octavo_device_release(self._device, self._workspace, self._workspace_bytes)
            _library.octavo_device_release(self._device, self._status, ctypes.sizeof(c_int32))
            _library.octavo_device_close(self._device)
        if getattr(self, "_context", None):
            _library.octavo_context_destroy(self._context)

    def _exec(self, like):
        stream = None
        if _is_torch(like) and like.is_cuda:
            import torch
            stream = torch.cuda.current_stream(like.device).cuda_stream
        return _Exec(device=self._device, stream=stream, threads=self.threads, workspace=self._workspace, workspace_bytes=self._workspace_bytes,
                     device_status=self._status)

    def check(self):
        """Raises where an earlier call on a GPU met content that the CPU would have refused (a NaN among keys, a position outside the
        cache), of which the host learns only here. Waits for PyTorch's current stream."""
        if not self._status:
            return
        import torch
        found = c_int32()
        index = int(self.name.partition(":")[2] or 0)
        execution = self._exec(torch.empty(0, device=f"cuda:{index}"))
        _call("octavo_device_download", byref(execution), byref(found), self._status, c_size_t(ctypes.sizeof(found)))
        if found.value:
            _call("octavo_device_upload", byref(execution), self._status, byref(c_int32(0)), c_size_t(ctypes.sizeof(found)))
            raise Error(found.value, f"a call on {self.name} met this in its input: {_library.octavo_status_text(found.value).decode()}")

    def _room(self, execution, wanted):
        """Makes the workspace at least `wanted` bytes."""
        if wanted > self._workspace_bytes:
            _library.octavo_device_release(self._device, self._workspace, self._workspace_bytes)
            self._workspace, self._workspace_bytes = c_void_p(), 0
            _call("octavo_device_allocate", self._device, c_size_t(wanted), byref(self._workspace))
            self._workspace_bytes = wanted
        execution.workspace, execution.workspace_bytes = self._workspace, self._workspace_bytes

    def quantize(self, x, dtype="e4m3", per="token", block=(0, 0), power_of_two=False, scales=None):
        """codes, scales of x [rows, cols]; codes * scales ~= x. Given scales are static: they are used as they are."""
        view, keep = _tensor(x)
        rows, cols = view.shape[0], view.shape[1]
        count = _library.octavo_scale_count(GRANULARITY[per], rows, cols, *block)
        static = scales is not None
        scales = scales if static else _empty(x, (count,), "f32")
        codes = _empty(x, (rows, cols), dtype)
        out, keep_out = _tensor(codes, dtype)
        params = _Quantize(x=view, codes=out, scales=_address(scales), granularity=GRANULARITY[per], scale_kind=int(power_of_two),
                           scale_source=int(static), block_rows=block[0], block_cols=block[1])
        _call("octavo_quantize", byref(self._exec(x)), byref(params))
        del keep, keep_out
        return codes, scales

    def dequantize(self, codes, scales, dtype=None, per="token", block=(0, 0)):
        """float32 [rows, cols]. `dtype` names the codes' format where the array's own type cannot ("e4m3" in uint8)."""
        view, keep = _tensor(codes, dtype)
        x = _empty(codes, (view.shape[0], view.shape[1]), "f32")
        out, keep_out = _tensor(x)
        params = _Dequantize(codes=view, x=out, scales=_address(scales), granularity=GRANULARITY[per], block_rows=block[0], block_cols=block[1])
        _call("octavo_dequantize", byref(self._exec(codes)), byref(params))
        del keep, keep_out
        return x

    def cache(self, **options):
        """A Cache on this device; see Cache for the options."""
        return Cache(self, **options)

    def _view(self, like, k, v, k_residual, lengths, dtype, k_dtype, head_major, block_tokens=64, sub_block_tokens=0):
        """A view of the caller's tensors, and what must live as long as it."""
        planes = [_tensor(x, k_dtype or dtype) for x in (k, k_residual) if x is not None]
        v_view, keep_v = _tensor(v, dtype)
        for view in [plane for plane, _ in planes] + [v_view] if head_major else ():
            view.shape[1], view.shape[2] = view.shape[2], view.shape[1]
            view.strides[1], view.strides[2] = view.strides[2], view.strides[1]
        k_view = planes[0][0]
        if lengths is None:
            lengths = _empty(like, (k_view.shape[0],), "int32")
            lengths[...] = k_view.shape[1]
        name = _dtype_name(k_view)
        page = _PageConfig(k_format=K_FORMATS[name if k_residual is None else NESTED[name]], v_format=V_FORMATS[_dtype_name(v_view)],
                           kv_heads=k_view.shape[2], head_dim=k_view.shape[3], v_dim=v_view.shape[3], block_tokens=block_tokens,
                           sub_block_tokens=sub_block_tokens)
        view, arrays = _View(), (_Tensor * len(planes))(*[plane for plane, _ in planes])
        _call("octavo_kv_view_over_tensors", byref(page), arrays, None, byref(v_view), None, c_void_p(_address(lengths)), byref(view))
        return view, (planes, keep_v, lengths)

    def decode(self, q, k, v, k_residual=None, lengths=None, dtype=None, k_dtype=None, block_tokens=64, sub_block_tokens=0, head_major=False,
               **options):
        """Attention of q over the caller's own k and v [batch, tokens, kv_heads, dim] in place (head_major: [batch, kv_heads, tokens,
        dim]). k is unquantised, or e4m3 or e5m2 codes; with k_residual (and residual_exponent, 0 or 4 for e4m3) both are planes. lengths:
        int32 [batch] on the device, all tokens where it is None. dtype and k_dtype name what arrays hold whose own type cannot say so.
        Options as Cache.decode."""
        view, keep = self._view(q, k, v, k_residual, lengths, dtype, k_dtype, head_major, block_tokens, sub_block_tokens)
        if k_residual is not None:
            view.k_residual_exponent = options.pop("residual_exponent", view.k_residual_exponent)
        result = _decode(self, view, q, dtype, options)
        del keep
        return result

    def prefill(self, q, k, v, precision="exact", mask="causal", lengths=None, dtype=None, head_major=False, out=None, results=("lse",), **options):
        """Attention of q [batch, q_tokens, q_heads, head_dim] over k and v [batch, tokens, kv_heads, dim] (head_major: all of them [batch,
        heads, tokens, dim]), whose last tokens are q's own. precision: "exact", "fp8", "sage1", "sage2". Options: window, sink_tokens,
        sink_logits, soft_cap, softmax_scale, flags, scales: "block", "head", "tensor", in sage "token", "warp", "thread" too; with fp8 a
        head or the tensor q_amax, k_amax, v_amax: f32 arrays of the heads' or the call's largest magnitude, found where they are None."""
        view, keep = self._view(q, k, v, None, lengths, dtype, None, head_major)
        q_view, keep_q = _tensor(q, dtype)
        if out is None:
            out = _empty(q, q.shape[:-1] + (view.v_dim,), _dtype_name(q_view))
        out_view, keep_out = _tensor(out, dtype if not _is_torch(q) else None)
        for one in (q_view, out_view) if head_major else ():
            one.shape[1], one.shape[2] = one.shape[2], one.shape[1]
            one.strides[1], one.strides[2] = one.strides[2], one.strides[1]
        result = Decoded(out)
        if "lse" in results:
            result.lse = _empty(q, (q_view.shape[0], q_view.shape[2], q_view.shape[1]), "f32")
        given = {name: _address(options.pop(name, None)) for name in ("sink_logits", "q_amax", "k_amax", "v_amax")}
        params = _Prefill(q=q_view, kv=ctypes.pointer(view), out=out_view, lse=_address(result.lse), precision=ATTENTION[precision],
                          mask=MASKS[mask], scales=PREFILL_SCALES[options.pop("scales", "block")], **given, **options)
        _run(self, "octavo_attention_prefill", q, params)
        del keep, keep_q, keep_out
        return result


class Cache:
    """Pages of keys and values of one or more layers, for sequences of any length. k and v name the formats of kvcache.h."""

    def __init__(self, device, kv_heads, head_dim, max_tokens, k="e4m3x2", v="int8", v_dim=0, layers=1, max_sequences=1, pages=None,
                 block_tokens=64, sub_block_tokens=0):
        self.device, self.max_tokens, self._cache, self._rows = device, max_tokens, c_void_p(), {}
        if pages is None:
            pages = max_sequences * -(-max_tokens // block_tokens)
        page = _PageConfig(k_format=K_FORMATS[k], v_format=V_FORMATS[v], kv_heads=kv_heads, head_dim=head_dim, v_dim=v_dim,
                           block_tokens=block_tokens, sub_block_tokens=sub_block_tokens)
        config = _CacheConfig(page=page, layers=layers, max_sequences=max_sequences, max_tokens=max_tokens, pages=pages)
        _call("octavo_kvcache_create", device._device, byref(config), byref(self._cache))

    def __del__(self):
        if getattr(self, "_cache", None):
            _library.octavo_kvcache_destroy(self._cache)

    def sequence(self):
        """An empty sequence."""
        made = c_int32()
        _call("octavo_kvcache_sequence", self._cache, byref(made))
        return made.value

    def fork(self, parent):
        """A second sequence with the same content."""
        made = c_int32()
        _call("octavo_kvcache_fork", self._cache, c_int32(parent), byref(made))
        return made.value

    def truncate(self, sequence, length):
        _call("octavo_kvcache_truncate", self._cache, c_int32(sequence), c_int64(length))

    def free(self, sequence):
        _call("octavo_kvcache_free", self._cache, c_int32(sequence))

    def reserve(self, sequence, tokens):
        """Makes room on the host; append does it by itself unless it is told not to."""
        _call("octavo_kvcache_reserve", self._cache, c_int32(sequence), c_int64(tokens))

    def append(self, sequences, k, v, layer=0, dtype=None, reserve=True):
        """k and v [len(sequences), tokens, kv_heads, dim], encoded on the way in."""
        (k_view, keep_k), (v_view, keep_v) = _tensor(k, dtype), _tensor(v, dtype)
        for sequence in sequences if reserve else ():
            self.reserve(sequence, k_view.shape[1])
        rows = (c_int32 * len(sequences))(*sequences)
        execution = self.device._exec(k)
        _call("octavo_kvcache_append", byref(execution), self._cache, c_int32(layer), c_int64(len(sequences)), rows, byref(k_view), byref(v_view))
        del keep_k, keep_v

    def decode(self, sequences, q, layer=0, dtype=None, **options):
        """Attention of the newest q.shape[1] tokens of each sequence. Options: select ("none", "base", "delta", "mass", "certified"), delta,
        thresholds, epsilon, compensate (True), keep_first_blocks, keep_last_blocks, window, sink_tokens, sink_logits, soft_cap,
        softmax_scale, precision ("exact", "fp8"), splits ("fill"; "fixed": a sequence's bits are the same in any batch), out, results
        (what is wanted beside out; all of it)."""
        rows = self._rows_of(sequences, q)
        view, host, execution = _View(), (c_int32 * len(sequences))(*sequences), self.device._exec(q)
        _call("octavo_kvcache_flush", byref(execution), self._cache)
        _call("octavo_kvcache_view", self._cache, c_int32(layer), c_int64(len(sequences)), host, byref(view))
        view.sequences = _address(rows)
        return _decode(self.device, view, q, dtype, options)

    def _rows_of(self, sequences, like):
        """The sequences as int32 where the device reads them; kept, so that a captured call finds them again."""
        key = tuple(sequences)
        if key not in self._rows:
            rows = _empty(like, (len(key),), "int32")
            for i, sequence in enumerate(key):
                rows[i] = sequence
            self._rows[key] = rows
        return self._rows[key]


def _run(device, name, like, params):
    execution, wanted = device._exec(like), c_size_t()
    _call(name + "_workspace", byref(execution), byref(params), byref(wanted))
    device._room(execution, wanted.value)
    _call(name, byref(execution), byref(params))


def _decode(device, view, q, dtype, options):
    q_view, keep = _tensor(q, dtype)
    batch, q_tokens, q_heads = q_view.shape[0], q_view.shape[1], q_view.shape[2]
    out = options.pop("out", None)
    result = Decoded(_empty(q, (batch, q_tokens, q_heads, view.v_dim), _dtype_name(q_view)) if out is None else out)
    out_view, keep_out = _tensor(result.out, dtype if not _is_torch(q) else None)
    made = {"lse": ((batch, q_heads, q_tokens), "f32"), "kept": ((batch, view.kv_heads, _library.octavo_kv_view_units(byref(view))), "uint8"),
            "skip_ratio": ((batch, view.kv_heads), "f32"), "dropped_mass": ((batch, q_heads), "f32"),
            "bytes_read": ((batch, view.kv_heads), "int64")}
    for wanted in options.pop("results", EVERYTHING):
        setattr(result, wanted, _empty(q, *made[wanted]))
    select = options.pop("select", "none")
    given = {name: _address(options.pop(name, None)) for name in ("sink_logits", "thresholds")}
    params = _Decode(q=q_view, kv=ctypes.pointer(view), out=out_view, select=RULES[select], compensate=int(options.pop("compensate", select != "none")),
                     precision=ATTENTION[options.pop("precision", "exact")], splits=SPLITS[options.pop("splits", "fill")],
                     **given, **{name: _address(getattr(result, name)) for name in EVERYTHING}, **options)
    _run(device, "octavo_attention_decode", q, params)
    del keep, keep_out
    return result

"""Arrays on the device, the products, and the stream in which all work is queued.

On a GPU torch owns the memory and multiplies (cuBLAS), and Numba's kernels see the same memory. In Numba's
simulator there is no torch with CUDA: NumPy multiplies, on copies. Kernels cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError, ShapeError
from pcsim.kernels import Array
from pcsim.kernels.cuda_device import Kernel, View, cuda
from pcsim.kernels.cuda_simulator import SimulatedStream, simulated

if TYPE_CHECKING:
    import torch

Extent = int | tuple[int, int]  # of a grid in blocks, or of a block in threads
Argument = Any  # what a kernel takes: a view or a number


@dataclass(eq=False)
class DeviceArray:
    """An array on the device, C-contiguous; wrapped once when it is made, so that a launch costs no wrapping.

    `array[...] = source` copies from another device array or from the host, all of it; `np.asarray(array)`
    and `array.copy()` copy to the host, after everything before them in the stream.

    Attributes:
        view: what Numba's kernels get.
        tensor: the same memory as torch sees it; None in the simulator.
        stream: of the simulator; None on a GPU.
    """

    view: View
    tensor: torch.Tensor | None = None
    stream: SimulatedStream | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.view.shape)

    @cached_property
    def dtype(self) -> np.dtype[np.floating]:
        """float32 or float64."""
        kind: np.dtype[np.floating] = np.dtype(self.view.dtype)
        return kind

    @cached_property
    def flat(self) -> View:
        """The same memory with one axis."""
        return self.view.reshape(self.size)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> Array | np.floating[Any]:
        """Return a part, copied to the host; waits for the device."""
        part: Array | np.floating[Any] = np.asarray(self)[index]
        return part

    def __setitem__(self, index: EllipsisType, source: DeviceArray | Array) -> None:
        if index is not Ellipsis or source.shape != self.shape:
            raise ShapeError(
                f"array on the device of shape {self.shape}: expected all of it to be set at once"
            )
        if self.tensor is None:
            self._simulate_copy(source)
        elif isinstance(source, DeviceArray) and source.tensor is not None:
            self.tensor.copy_(source.tensor)
        else:
            self.tensor.copy_(self.tensor.new_tensor(np.ascontiguousarray(source)))

    def _simulate_copy(self, source: DeviceArray | Array) -> None:
        assert self.stream is not None
        if isinstance(source, DeviceArray):
            given = source.view
            self.stream.do(lambda: self.view.copy_to_device(given.copy_to_host().astype(self.dtype)))
        else:
            self.stream.wait()  # what comes from the host is no part of a graph
            self.view.copy_to_device(np.array(source, self.dtype, order="C"))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return a copy on the host; waits for the device."""
        host = self.head(len(self))
        return host if dtype is None else host.astype(dtype, copy=False)

    def head(self, count: int) -> Array:
        """Return a copy of so many of the first rows on the host; waits for the device."""
        if self.tensor is not None:
            host: Array = self.tensor[:count].cpu().numpy()
        else:
            assert self.stream is not None
            self.stream.wait()
            host = self.view[:count].copy_to_host()
        return host

    def copy(self) -> Array:
        """Return a copy on the host; waits for the device."""
        return np.array(self)


class Products(Protocol):
    """Where arrays live and who multiplies.

    Attributes:
        name: who multiplies, and on what.
    """

    name: str

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return a new array of zeros."""
        ...

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, arguments: Sequence[Argument]) -> None:
        """Queue a kernel, in one stream with the products; returns at once."""
        ...

    def upload(self, host: Array, array: DeviceArray) -> None:
        """Queue a copy from the host, which may change its array at once; waits for no work of before."""
        ...

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record what `step` queues as a graph, without doing it; return what replays it.

        Let it run at least once before, so that every kernel is compiled and all scratch exists. It must
        not wait for the device; what it reads must stay in the same arrays.
        """
        ...

    def predict(self, rates: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray) -> None:
        """Form out = rates weightᵀ + bias; (batch, n), (m, n), (m,) → (batch, m)."""
        ...

    def feedback(self, error: DeviceArray, weight: DeviceArray, factor: float, out: DeviceArray) -> None:
        """Form out = factor · error weight; (batch, m), (m, n) → (batch, n)."""
        ...

    def hebbian(
        self, error: DeviceArray, rates: DeviceArray, out: DeviceArray, bias_out: DeviceArray
    ) -> None:
        """Form G = the mean of error ratesᵀ, g = that of error; (batch, m), (batch, n) → (m, n), (m,)."""
        ...


class HostProducts:
    """NumPy on copies, for the simulator: slow, and right."""

    name = "numpy, on a simulated GPU"

    def __init__(self) -> None:
        self._stream = SimulatedStream()

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """See `Products`."""
        self._stream.wait()  # a step must not allocate
        return DeviceArray(cuda.to_device(np.zeros(shape, dtype)), stream=self._stream)

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, arguments: Sequence[Argument]) -> None:
        """See `Products`."""
        self._stream.do(lambda: kernel[grid, block](*arguments))

    def upload(self, host: Array, array: DeviceArray) -> None:
        """See `Products`."""
        array[...] = host

    def predict(self, rates: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray) -> None:
        """See `Products`."""
        self._stream.do(lambda: _fill(out, _host(rates) @ _host(weight).T + _host(bias)))

    def feedback(self, error: DeviceArray, weight: DeviceArray, factor: float, out: DeviceArray) -> None:
        """See `Products`."""
        self._stream.do(lambda: _fill(out, factor * (_host(error) @ _host(weight))))

    def hebbian(
        self, error: DeviceArray, rates: DeviceArray, out: DeviceArray, bias_out: DeviceArray
    ) -> None:
        """See `Products`."""
        self._stream.do(lambda: _fill(out, _host(error).T @ _host(rates) / len(error)))
        self._stream.do(lambda: _fill(bias_out, _host(error).mean(axis=0)))

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Products`."""
        return self._stream.capture(step)


class TorchProducts:
    """Torch on the current CUDA device and stream: cuBLAS, with bias and precision in its epilogue.

    Args:
        device: of torch; "cpu" serves to test the products where there is no GPU, without kernels.

    Attributes:
        name: torch, and the GPU's.

    Raises:
        ConfigurationError: torch finds no such device.
    """

    def __init__(self, device: str = "cuda") -> None:
        try:
            import torch
        except ImportError as error:
            raise ConfigurationError("backend cuda: needs torch; install pcsim[torch]") from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigurationError(
                f"backend cuda: torch {torch.__version__} finds no GPU; "
                "use another backend, or NUMBA_ENABLE_CUDASIM=1 to simulate one"
            )
        self._torch, self._device = torch, device
        self._on_gpu = device.startswith("cuda")
        self.name = f"torch, on {torch.cuda.get_device_name() if self._on_gpu else device}"
        self._streams: dict[int, Any] = {}
        self._staging: WeakKeyDictionary[DeviceArray, Staging] = WeakKeyDictionary()

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """See `Products`."""
        kind = getattr(self._torch, np.dtype(dtype).name)
        tensor = self._torch.zeros(shape, dtype=kind, device=self._device)
        return DeviceArray(cuda.as_cuda_array(tensor.detach()) if tensor.is_cuda else tensor, tensor)

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, arguments: Sequence[Argument]) -> None:
        """See `Products`: on torch's current stream, which is another one while a graph is captured."""
        handle = self._torch.cuda.current_stream().cuda_stream
        if handle not in self._streams:
            self._streams[handle] = cuda.external_stream(handle)
        kernel[grid, block, self._streams[handle]](*arguments)

    def upload(self, host: Array, array: DeviceArray) -> None:
        """See `Products`: while the GPU is busy with the mini-batch before."""
        if not self._on_gpu:
            _tensor(array).numpy()[...] = host
            return
        if array not in self._staging:
            self._staging[array] = Staging(_tensor(array))
        self._staging[array].bring(host)

    def predict(self, rates: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray) -> None:
        """See `Products`."""
        self._torch.addmm(_tensor(bias), _tensor(rates), _tensor(weight).t(), out=_tensor(out))

    def feedback(self, error: DeviceArray, weight: DeviceArray, factor: float, out: DeviceArray) -> None:
        """See `Products`."""
        result = _tensor(out)
        if factor == 1:
            self._torch.mm(_tensor(error), _tensor(weight), out=result)
        else:  # beta = 0: what `out` held is not read, not even its NaN
            self._torch.addmm(result, _tensor(error), _tensor(weight), beta=0, alpha=factor, out=result)

    def hebbian(
        self, error: DeviceArray, rates: DeviceArray, out: DeviceArray, bias_out: DeviceArray
    ) -> None:
        """See `Products`: torch sums columns by many blocks, too, as a product with ones would not."""
        result = _tensor(out)
        share = 1 / len(error)
        self._torch.addmm(result, _tensor(error).t(), _tensor(rates), beta=0, alpha=share, out=result)
        self._torch.mean(_tensor(error), 0, out=_tensor(bias_out))

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """See `Products`: a CUDA graph."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            step()

        def replay(needed: object = step) -> None:  # whose arrays the graph writes to
            graph.replay()

        return replay


class Staging:
    """The way of mini-batches into an array on a GPU, whose kernels may still be at work on the last one.

    From the host's array into memory that the GPU reads itself, from there into memory beside the array in a
    stream of its own, and in the stream of all work only from there into the array: a microsecond.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        import torch

        self._tensor, self._in_stream = tensor, torch.cuda.stream
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._beside = torch.empty_like(tensor)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._beside.record_stream(self._stream)
        self._arrived, self._used = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._current = torch.cuda.current_stream
        self._used.record()  # what lay there before may still be read, by work that is queued

    def bring(self, host: Array) -> None:
        """Queue a copy of the host's array, which may change at once."""
        self._arrived.synchronize()  # what was brought last has left the host
        self._host.numpy()[...] = host
        self._stream.wait_event(self._used)
        with self._in_stream(self._stream):
            self._beside.copy_(self._host, non_blocking=True)
            self._arrived.record()
        here = self._current()
        here.wait_event(self._arrived)
        self._tensor.copy_(self._beside)
        self._used.record(here)


def take_device(rank: int) -> None:
    """Let this process, one of several, use a GPU of its own if there are as many; before it has kernels.

    Torch, which owns the memory, and Numba, which launches, each have to be told. The simulator has one GPU.
    """
    import torch

    devices = 0 if simulated() else torch.cuda.device_count()
    if devices:
        torch.cuda.set_device(rank % devices)
        cuda.select_device(rank % devices)


def _tensor(array: DeviceArray) -> torch.Tensor:
    assert array.tensor is not None
    return array.tensor


def _host(array: DeviceArray) -> Array:
    """Return a copy of a simulated array, in stream order."""
    host: Array = array.view.copy_to_host()
    return host


def _fill(array: DeviceArray, values: Array) -> None:
    """Write to a simulated array, in stream order."""
    array.view.copy_to_device(np.ascontiguousarray(values, array.dtype))

"""How a thread shares a pass over memory with those that are awake: compiled code and a few shared words.

A pass has blocks. Whoever has the pass posts it: each thread gets a share of the blocks, takes one after the
other, and then those that others have left. The same blocks of the next pass are the same thread's again, so
that it finds in its own cache what it has written: cores that share no cache take longer to get it from each
other than for most passes. Who has posted waits only for blocks that were begun: nobody waits for a thread to
come, and one that the operating system has stopped, because another process wants its processor, holds up one
block at most.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pcsim.kernels.compiler import Function, jit

# llvmlite and Numba's code generation have no types: what the names below stand for is checked by nobody.
Value: TypeAlias = Any  # a value of the program that is being written
Builder: TypeAlias = Any  # writes instructions
Typed: TypeAlias = Any  # Numba's description of an argument
Generate: TypeAlias = Callable[[Typed, Builder, Typed, Sequence[Value]], Value]
Mail: TypeAlias = NDArray[np.int64]
Block: TypeAlias = Any  # the number of a block, of 64 bits

# Words of the mail; those that are written at different times lie in different lines of the cache.
LINE = 16  # words, two lines: processors fetch them in pairs
DONE = 0  # blocks that helpers have done
AWAKE = LINE  # helpers that look for work, or will soon
LEAVE = AWAKE + 1  # not 0: helpers go to sleep at once
GIVE_WAY = AWAKE + 2  # address of the system's function that lets others have the processor, or 0
THREADS = AWAKE + 3  # that have shares: whoever posts, and the helpers
ADDRESS = 2 * LINE  # of the function that does a block
OPERANDS = ADDRESS + 1  # address of what it wants
BUSY = ADDRESS + 2  # not 0: a pass is posted
SHARES = 3 * LINE  # of each thread: number of the pass, first block not begun, end of its blocks

BLOCK_BITS = 8  # of a share that are a block
MOST_BLOCKS = (1 << BLOCK_BITS) - 1
TRIALS, TRIAL = 10, 1000  # of the length of a moment, and moments of each
LONGEST_MOMENT = 1e-6  # seconds; a pause takes a tenth of it on any processor
PAUSES = 32  # between two offers of the processor to whoever wants it

INDEX, NOTHING = ir.IntType(64), ir.VoidType()


def instruction(function: Callable[..., tuple[Typed, Generate]]) -> Callable[..., Any]:
    """Make what compiled code calls without the first argument, and whose instructions are ours."""
    return cast("Callable[..., Any]", intrinsic(function))


@instruction
def read(typing: Typed, mail: Typed, word: Typed) -> tuple[Typed, Generate]:
    """Return a word; nothing that follows is read before it."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(mail, types.intp), generate


@instruction
def write(typing: Typed, mail: Typed, word: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Set a word; who reads it finds written whatever was written before."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        builder.store_atomic(arguments[2], _place(context, builder, signature, arguments), "release", 8)
        return context.get_dummy_value()

    return types.void(mail, types.intp, types.int64), generate


@instruction
def add(typing: Typed, mail: Typed, word: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Add to a word; return what it was."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place = _place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "acq_rel")

    return types.int64(mail, types.intp, types.int64), generate


@instruction
def swap(typing: Typed, mail: Typed, word: Typed, old: Typed, new: Typed) -> tuple[Typed, Generate]:
    """Set a word if it still has its old value; return whether it had."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place = _place(context, builder, signature, arguments)
        found = builder.cmpxchg(place, arguments[2], arguments[3], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(mail, types.intp, types.int64, types.int64), generate


@instruction
def address_of(typing: Typed, value: Typed) -> tuple[Typed, Generate]:
    """Return where a value lies; it does until the function that asks returns."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        place: Value = cgutils.alloca_once_value(builder, arguments[0])  # type: ignore[no-untyped-call]
        return builder.ptrtoint(place, INDEX)

    return types.intp(value), generate


@instruction
def block_function(typing: Typed, body: Typed, operands: Typed) -> tuple[Typed, Generate]:
    """Return the address of a function of (address of the operands, block) that calls a compiled one.

    Args:
        typing: by Numba.
        body: a compiled function of (operands, block).
        operands: a tuple; only its type counts.
    """
    given = operands, types.intp
    body.dispatcher.compile(given)
    made = body.dispatcher.overloads[given]

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        name = builder.module.get_unique_name(f"{builder.function.name}.block")
        function = ir.Function(builder.module, ir.FunctionType(NOTHING, [INDEX, INDEX]), name)
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        place = inside.inttoptr(function.args[0], context.get_value_type(operands).as_pointer())
        context.add_linking_libs([made.library])
        context.call_internal_no_propagate(
            inside, made.fndesc, made.signature, [inside.load(place), function.args[1]]
        )
        inside.ret_void()
        return builder.ptrtoint(function, INDEX)

    return types.intp(body, operands), generate


@instruction
def do(typing: Typed, function: Typed, operands: Typed, block: Typed) -> tuple[Typed, Generate]:
    """Do a block of a pass: call a function at an address with the address of its operands."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        kind = ir.FunctionType(NOTHING, [INDEX, INDEX]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@instruction
def give_way(typing: Typed, function: Typed) -> tuple[Typed, Generate]:
    """Let others have the processor: call the system's function at this address."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@instruction
def rest(typing: Typed) -> tuple[Typed, Generate]:
    """Tell an x86 processor that this thread waits: whatever else runs on the core gets more of it."""

    def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
        if llvmlite.binding.get_default_triple().startswith("x86_64"):
            kind = ir.FunctionType(NOTHING, [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), generate


def _place(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
    """Return a pointer to the word of the mail that the second argument names."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])


def compiled(function: Function) -> Function:
    """Compile without any freedom to reorder."""
    return jit(function, error_model="numpy")


@compiled
def wait(mail: Mail, turn: int) -> None:
    """Let a moment pass; `turn` counts them."""
    rest()
    if turn % PAUSES == 0 and mail[GIVE_WAY] != 0:
        give_way(mail[GIVE_WAY])


@compiled
def give_out(mail: Mail, blocks: int) -> None:
    """Give each thread its share of the blocks of a new pass."""
    threads = mail[THREADS]
    for thread in range(threads):
        word = SHARES + LINE * thread
        # Rounded up: of a few blocks the first thread has some, who posts and is there already.
        first, end = -(-blocks * thread // threads), -(-blocks * (thread + 1) // threads)
        number = (read(mail, word) >> (2 * BLOCK_BITS)) + 1
        write(mail, word, (((number << BLOCK_BITS) + first) << BLOCK_BITS) + end)


@compiled
def take(mail: Mail, thread: int, last: bool) -> Block:
    """Return the first or the last block of a thread's share that nobody has begun; −1 if there is none."""
    word = SHARES + LINE * thread
    while True:
        share = read(mail, word)
        first, end = (share >> BLOCK_BITS) & MOST_BLOCKS, share & MOST_BLOCKS
        if first == end:
            return -1
        if swap(mail, word, share, share - 1 if last else share + (1 << BLOCK_BITS)):
            return end - 1 if last else first


@compiled
def do_some(mail: Mail, function: int, operands: int, thread: int) -> int:
    """Do the blocks of one's share, then the last ones of others; return how many it were.

    Args:
        mail: where a pass may be posted.
        function: address of what does a block; 0 if whoever asks does not know, and finds it in the mail.
        operands: of the function.
        thread: who asks.
    """
    count, threads = 0, mail[THREADS]
    for turn in range(threads):
        other = (thread + turn) % threads
        block = take(mail, other, turn != 0)
        while block >= 0:
            if function != 0:
                do(function, operands, block)
            else:  # it is read after the block is taken: only then does the pass not end
                do(read(mail, ADDRESS), read(mail, OPERANDS), block)
                add(mail, DONE, 1)
            count += 1
            block = take(mail, other, turn != 0)
    return count


@compiled
def help_out(mail: Mail, patience: int, thread: int) -> None:
    """Take blocks of passes until none has come for so many moments, or all are to leave.

    Args:
        mail: where passes are posted.
        patience: in moments.
        thread: whose share is looked at, 1 for the first helper.
    """
    turn = 0
    while turn < patience and read(mail, LEAVE) == 0:
        share = read(mail, SHARES + LINE * thread)
        if share & MOST_BLOCKS != (share >> BLOCK_BITS) & MOST_BLOCKS:
            do_some(mail, 0, 0, thread)
            turn = 0
        else:
            turn += 1
            wait(mail, turn)
    add(mail, AWAKE, -1)


@compiled
def expect(mail: Mail, more: int) -> None:
    """Count on more helpers, or fewer, than before."""
    add(mail, AWAKE, more)


@compiled
def do_blocks(mail: Mail, function: int, operands: int, blocks: int) -> bool:
    """Do all blocks of a pass, with whoever is awake; return whether anybody is.

    If another thread has posted a pass of its own, this one is done alone.

    Args:
        mail: of a crew.
        function: address that `block_function` has given.
        operands: address of its operands.
        blocks: at most `MOST_BLOCKS`.
    """
    awake: bool = read(mail, AWAKE) > 0
    if not awake or not swap(mail, BUSY, 0, 1):
        for block in range(blocks):
            do(function, operands, block)
        return awake
    # Nobody looks at these before a block is taken, and all blocks of the pass before are done.
    write(mail, ADDRESS, function)
    write(mail, OPERANDS, operands)
    write(mail, DONE, 0)
    give_out(mail, blocks)
    others = blocks - do_some(mail, function, operands, 0)
    turn = 0
    while read(mail, DONE) != others:
        turn += 1
        wait(mail, turn)
    write(mail, BUSY, 0)
    return True


def new_mail(threads: int = 1) -> Mail:
    """Return the mail of a crew that is asleep."""
    mail = np.zeros(SHARES + LINE * threads, np.int64)
    mail[GIVE_WAY], mail[THREADS] = _system_call(), threads
    return mail


def moments(seconds: float) -> int:
    """Return how many moments of `help_out` take so long on this machine, however busy it is now.

    Nobody gives way meanwhile, and the shortest of some trials counts, each of which takes less than a turn
    on a processor that others want, too.
    """
    mail = new_mail()
    mail[GIVE_WAY] = 0
    help_out(mail, 1, 0)
    shortest = LONGEST_MOMENT * TRIAL
    for _ in range(TRIALS):
        start = time.perf_counter()
        help_out(mail, TRIAL, 0)
        shortest = min(shortest, time.perf_counter() - start)
    return int(TRIAL * seconds / shortest)


def compile_all() -> None:
    """Compile, or load from disk, what nobody else calls before helpers are needed."""
    mail = new_mail()
    expect(mail, 1)
    help_out(mail, 1, 0)


def _system_call() -> int:
    """Return where the system's function that gives way is; 0 if there is none."""
    try:
        return cast("int", ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value)
    except (AttributeError, OSError, TypeError):  # not a POSIX system
        return 0

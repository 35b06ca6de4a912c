"""Host programs for emitted GPU kernels: a stranger with the device compiles one, and it checks and times the kernels.

Inputs are made by a formula that C and NumPy share, and samples of the results, from float64, lie in the program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..floatcheck import evaluate
from ..ir.program import Buffer, TensorProgram
from ..shipping import Made

SAMPLES = 64  # results of each output that a launcher compares
_TYPES = {"f32": "float", "f64": "double", "f16": "unsigned short", "bf16": "unsigned short", "bool": "unsigned char",
          "u8": "unsigned char", "i8": "signed char", "i16": "short", "i32": "int", "i64": "long long"}  # fmt: skip
_HEAD = """\
/* @TITLE@ for @DEVICE@: allocates, runs, compares with results from float64, and times. See README.md. */
@INCLUDES@

static unsigned draw(unsigned long long n, unsigned seed) { /* 0 .. 8 */
  unsigned long long x = (n + 1) * 6364136223846793005ull + seed * 1442695040888963407ull;
  x ^= x >> 33; x *= 0xff51afd7ed558ccdull; x ^= x >> 29;
  return (unsigned)(x % 9);
}
"""
_READ = {"f16": "half_value", "bf16": "bfloat_value"}  # of 16-bit floats, which are kept as their bits
_HALVES = {"f16": """\
static double half_value(unsigned short h) {
  int e = h >> 10 & 31, m = h & 1023;
  double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
  if (e == 31) x = m ? NAN : INFINITY;
  return h >> 15 ? -x : x;
}
""", "bf16": """\
static double bfloat_value(unsigned short h) {
  union { unsigned u; float f; } v;
  v.u = (unsigned)h << 16;
  return v.f;
}
"""}  # fmt: skip
_CUDA = """\
#define API(call) do { @PREFIX@Error_t e = (call); if (e != @PREFIX@Success) { \\
  fprintf(stderr, "%s: %s\\n", #call, @PREFIX@GetErrorString(e)); return 1; } } while (0)
int main() {
@ALLOCATE@
  @PREFIX@Event_t start, stop;
  API(@PREFIX@EventCreate(&start)); API(@PREFIX@EventCreate(&stop));
  float best = 1e30f;
  for (int round = 0; round < 20; ++round) {
    API(@PREFIX@EventRecord(start));
@LAUNCH@
    API(@PREFIX@GetLastError());
    API(@PREFIX@EventRecord(stop)); API(@PREFIX@EventSynchronize(stop));
    float ms = 0; API(@PREFIX@EventElapsedTime(&ms, start, stop));
    if (ms < best) best = ms;
  }
  int wrong = 0;
@CHECK@
  printf("%s, %.3f us\\n", wrong ? "WRONG" : "right", best * 1e3);
  return wrong != 0;
}
"""
_OPENCL = """\
#define API(call) do { cl_int e = (call); if (e != CL_SUCCESS) { \\
  fprintf(stderr, "%s: error %d\\n", #call, e); return 1; } } while (0)
static char *slurp(const char *name, size_t *size) {
  FILE *f = fopen(name, "rb"); char *text;
  if (!f) return 0;
  fseek(f, 0, SEEK_END); *size = (size_t)ftell(f); rewind(f);
  text = (char *)malloc(*size + 1); *size = fread(text, 1, *size, f); fclose(f);
  return text;
}
int main(int argc, char **argv) {
  cl_platform_id platforms[8]; cl_device_id device; cl_uint count = 0; cl_int e; size_t size = 0;
  char *text = slurp("kernel.cl", &size); char name[256];
  unsigned which = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
  if (!text) { fprintf(stderr, "kernel.cl is not in this folder\\n"); return 1; }
  API(clGetPlatformIDs(8, platforms, &count));
  if (which >= count) { fprintf(stderr, "there are %u platforms\\n", count); return 1; }
  API(clGetDeviceIDs(platforms[which], CL_DEVICE_TYPE_ALL, 1, &device, 0));
  API(clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, 0));
  cl_context context = clCreateContext(0, 1, &device, 0, 0, &e); API(e);
  cl_command_queue queue = clCreateCommandQueue(context, device, CL_QUEUE_PROFILING_ENABLE, &e); API(e);
  cl_program program = clCreateProgramWithSource(context, 1, (const char **)&text, &size, &e); API(e);
  if (clBuildProgram(program, 1, &device, "", 0, 0) != CL_SUCCESS) {
    static char log[65536];
    clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, sizeof log, log, 0);
    fprintf(stderr, "%s\\n", log); return 1;
  }
@ALLOCATE@
  double best = 1e30;
  for (int round = 0; round < 20; ++round) {
    double spent = 0; cl_event event; cl_ulong from, to;
@LAUNCH@
    if (spent < best) best = spent;
  }
  int wrong = 0;
@CHECK@
  printf("%s, %.3f us on %s\\n", wrong ? "WRONG" : "right", best * 1e-3, name);
  return wrong != 0;
}
"""


def drawn(b: Buffer, seed: int) -> np.ndarray[Any, Any]:
    """The input that the C function `draw` makes: small integers, or booleans."""
    n = np.arange(b.size, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = (n + np.uint64(1)) * np.uint64(6364136223846793005) + np.uint64(seed * 1442695040888963407 % (1 << 64))
        x ^= x >> np.uint64(33)
        x *= np.uint64(0xFF51AFD7ED558CCD)
        x ^= x >> np.uint64(29)
    values = (x % np.uint64(9)).astype(np.int64)
    values = values % 2 if b.dtype.kind == "b" else values if b.dtype.kind == "u" else values - 4
    return values.astype(b.dtype.numpy).reshape(b.shape)


def _made_in_c(b: Buffer, seed: int) -> str:
    if b.dtype.kind == "b":
        return f"(unsigned char)(draw(n, {seed}u) % 2)"
    small = f"draw(n, {seed}u)" if b.dtype.kind == "u" else f"((int)draw(n, {seed}u) - 4)"
    if b.dtype.is_float and b.dtype.bits == 16:  # the bits of -4 .. 4
        bits = np.arange(-4, 5).astype(b.dtype.numpy).view(np.uint16)
        return "((const unsigned short[]){" + ", ".join(map(str, bits)) + "})[draw(n, " + f"{seed}u)]"
    return f"({_TYPES[b.dtype.name]}){small}"


def launcher(target: str, title: str, device: str, program: TensorProgram, made: Sequence[Made]) -> str:
    """The text of launch.cpp (CUDA, HIP) or launch.c (OpenCL)."""
    handed = [replace(b, name=k.names[b.name]) for k in made for b in k.handed]
    buffers = {b.name: b for b in (*program.buffers, *handed)}
    names: dict[str, str] = {}  # a buffer's name in the program -> the pointer's name in C
    for n, b in enumerate(buffers.values()):
        names[b.name] = f"d{n}_{re.sub(r'[^A-Za-z0-9_]', '_', b.name)}"
    inputs = [drawn(b, n) for n, b in enumerate(program.inputs)]
    results = evaluate(program, inputs)
    cuda = target != "opencl"
    prefix = "hip" if target == "hip" else "cuda"
    includes = {
        "cuda": "#include <cstdio>\n#include <cstdlib>\n#include <cmath>\n#include \"kernel.cu\"",
        "hip": "#include <hip/hip_runtime.h>\n#include <cstdio>\n#include <cstdlib>\n#include <cmath>\n"
               "#include \"kernel.hip\"",
        "opencl": "#define CL_TARGET_OPENCL_VERSION 120\n#include <CL/cl.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
                  "#include <math.h>",
    }[target]  # fmt: skip
    allocate, check = [], []
    passed = {places[b] for k in made for places in [k.names] for e in k.text.entries for b in e.buffers}
    for n, b in enumerate(buffers.values()):
        if b.name not in passed and b.scope == "temp":
            continue  # it lives inside a kernel
        kind, name, bytes_ = _TYPES[b.dtype.name], names[b.name], max(b.bytes, 16)
        host = f"h_{name}"
        if b.scope != "temp":
            allocate.append(f"  {kind} *{host} = ({kind} *)malloc({bytes_});")
        if b.scope == "input":
            allocate.append(
                f"  for (unsigned long long n = 0; n < {b.size}ull; ++n) {host}[n] = {_made_in_c(b, n)};"
            )
        if cuda:
            allocate.append(f"  {kind} *{name}; API({prefix}Malloc((void **)&{name}, {bytes_}));")
            if b.scope == "input":
                allocate.append(f"  API({prefix}Memcpy({name}, {host}, {b.bytes}, {prefix}MemcpyHostToDevice));")
        else:
            allocate.append(f"  cl_mem {name} = clCreateBuffer(context, CL_MEM_READ_WRITE, {bytes_}, 0, &e); API(e);")
            if b.scope == "input":
                allocate.append(f"  API(clEnqueueWriteBuffer(queue, {name}, CL_TRUE, 0, {b.bytes}, {host}, 0, 0, 0));")
    launch = []
    for k in made:
        places = k.names
        for entry in k.text.entries:
            given = [names[places[name]] for name in entry.buffers]
            if cuda:
                grid, block = (f"dim3({', '.join(map(str, size))})" for size in (entry.launch.grid, entry.launch.block))
                launch.append(f"    {entry.symbol}<<<{grid}, {block}>>>({', '.join(given)});")
                continue
            threads = [g * b for g, b in zip(entry.launch.grid, entry.launch.block)]
            launch += [
                f"    {{ cl_kernel k = clCreateKernel(program, \"{entry.symbol}\", &e); API(e);",
                f"      const size_t all[3] = {{{', '.join(map(str, threads))}}}, "
                f"block[3] = {{{', '.join(map(str, entry.launch.block))}}};",
                *(f"      API(clSetKernelArg(k, {n}, sizeof(cl_mem), &{name}));" for n, name in enumerate(given)),
                "      API(clEnqueueNDRangeKernel(queue, k, 3, 0, all, block, 0, 0, &event)); API(clWaitForEvents(1, "
                "&event));",
                "      API(clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof from, &from, 0));",
                "      API(clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof to, &to, 0));",
                "      spent += (double)(to - from); clReleaseEvent(event); clReleaseKernel(k); }",
            ]
    for output, value in zip(program.outputs, results):
        b, name = buffers[output], names[output]
        flat = np.asarray(value.v, np.float64).ravel()
        at = np.unique(np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64))
        error = np.broadcast_to(np.asarray(value.e, np.float64), np.shape(value.v)).ravel()
        bounds = np.minimum(np.nan_to_num(error, posinf=1e30), 1e30) + 1e-6 * np.abs(flat)
        copy = (f"API({prefix}Memcpy(h_{name}, {name}, {b.bytes}, {prefix}MemcpyDeviceToHost));" if cuda else
                f"API(clEnqueueReadBuffer(queue, {name}, CL_TRUE, 0, {b.bytes}, h_{name}, 0, 0, 0));")  # fmt: skip
        rows = ", ".join(f"{{{i}, {flat[i]:.17g}, {bounds[i]:.3g}}}" for i in at if np.isfinite(flat[i]))
        check += [
            f"  {copy}",
            f"  {{ static const double want[][3] = {{{rows}}};",
            "    for (unsigned n = 0; n < sizeof want / sizeof *want; ++n)",
            f"      wrong += !(fabs({_READ.get(b.dtype.name, '(double)')}(h_{name}[(unsigned long long)want[n][0]]) - "
            "want[n][1]) <= want[n][2]); }",
        ]
    words = {"TITLE": title, "DEVICE": device, "INCLUDES": includes, "PREFIX": prefix, "ALLOCATE": "\n".join(allocate),
             "LAUNCH": "\n".join(launch), "CHECK": "\n".join(check)}  # fmt: skip
    halves = {buffers[output].dtype.name for output in program.outputs} & _READ.keys()
    text = _HEAD + "".join(map(_HALVES.__getitem__, sorted(halves))) + (_CUDA if cuda else _OPENCL)
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], text)

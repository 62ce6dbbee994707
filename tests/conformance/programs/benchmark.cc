// A benchmark of google-benchmark, whose heading tells about the CPUs.
#include <benchmark/benchmark.h>

static void nothing(benchmark::State &state) {
    for (auto _ : state)
        benchmark::DoNotOptimize(state.iterations());
}

BENCHMARK(nothing)->Iterations(1);
BENCHMARK_MAIN();

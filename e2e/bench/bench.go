// Package bench measures the runtime against prompt flow's own server, `pf flow serve`, side by side: the same flows on the same
// machine in one run, one server at a time. `make bench-runtime` runs it, prints a table and writes .build/bench/runtime.json.
//
// There is only test code here. BENCH_SHORT=1 makes a run of minutes instead of half an hour, to see that it works; its
// figures mean little.
package bench

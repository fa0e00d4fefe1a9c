/* MKL, which torch brings along, takes its AVX-512 kernels on processors of Intel only. Where
   an AMD processor has AVX-512, this makes float32 products up to twice as fast:

       gcc -shared -fPIC -o mkl_avx512_on_amd.so benchmarks/mkl_avx512_on_amd.c
       LD_PRELOAD=$PWD/mkl_avx512_on_amd.so python benchmarks/quality.py

   Sums are rounded in another order, as between any two processors. Rows of such runs say so
   as their device. */

int mkl_serv_intel_cpu_true(void) { return 1; }

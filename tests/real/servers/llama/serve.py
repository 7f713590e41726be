"""Serve a model with llama.cpp's own HTTP server: serve.py MODEL PORT [embed]."""

import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_ctx = 8192
params.n_parallel = 4
params.warmup = False
params.cpuparams.n_threads = 1
if len(sys.argv) > 3:
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
print("ready", server.listening_address, flush=True)
threading.Event().wait()

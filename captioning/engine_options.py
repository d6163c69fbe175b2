"""Which options of an engine change no answer. All others count as part of the question, unknown ones too.

Options here decide how much memory is used, on how many devices, in what batches, and by which kernels: as with a
batch's size, only the last digits of the arithmetic may differ. What changes weights, the width of numbers, tokens,
templates or pictures (quantization, dtype, kv_cache_dtype, mm_processor_kwargs, hf_overrides, trust_remote_code, …) is
not here, nor is what is new: one question too many costs time, a wrong answer costs trust.
"""

OPERATIONAL = frozenset(
    {
        # memory
        "block_size",
        "cpu_offload_gb",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "limit_mm_per_prompt",  # a question has one image
        "max_model_len",  # what is longer is refused
        "mm_processor_cache_gb",
        "mm_processor_cache_type",
        "num_gpu_blocks_override",
        "offload_backend",
        "skip_mm_profiling",
        # batches
        "async_scheduling",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "long_prefill_token_threshold",
        "max_num_batched_tokens",
        "max_num_seqs",
        "scheduling_policy",
        # devices
        "data_parallel_backend",
        "data_parallel_size",
        "disable_custom_all_reduce",
        "distributed_executor_backend",
        "enable_expert_parallel",
        "mm_encoder_tp_mode",
        "numa_bind",
        "pipeline_parallel_size",
        "renderer_num_workers",
        "tensor_parallel_size",
        # compilation and kernels
        "attention_backend",
        "compilation_config",
        "cudagraph_capture_sizes",
        "disable_cascade_attn",
        "enforce_eager",
        "max_cudagraph_capture_size",
        "mm_encoder_attn_backend",
        "optimization_level",
        # loading and logging
        "disable_log_stats",
        "download_dir",
        "hf_token",
        "max_parallel_loading_workers",
        "safetensors_load_strategy",
        "use_tqdm_on_load",
    }
)
OF_TRANSFORMERS = frozenset({"trust_remote_code"})  # all that this engine reads

"""minitf: Transformers whose parameters are tokens, in NumPy and CuPy, every gradient written by hand.

    config = TokenformerConfig(vocab_size=65, context=64, n_layers=2, d_model=64, n_heads=4,
                               attention_tokens=48, ffn_tokens=192)
    params = init_params(config)                                  # a nested dict of arrays
    loss, grads = loss_and_grads(params, ids, targets, config)    # the same dict of gradients
    params, config = grow(params, config, ffn_tokens=384)         # the same function, more room

Read `pattention.py` first; `ops.py` has the other formulas, `model.py` puts them together.
"""

from .activity import (
    ffn_units,
    knock_out,
    knock_outs,
    label_counts,
    loudest,
    selectivity,
    token_importance,
)
from .attention import (
    causal_attention_backward,
    causal_attention_forward,
    full_attention_backward,
    full_attention_forward,
    rotary_backward,
    rotary_forward,
)
from .backend import array_module, to_device, to_host, tree_from_items, tree_items, tree_map
from .checkpoint import Checkpoint, CheckpointError, from_official, load_official, save_official
from .cost import (
    FlopCounter,
    count_layer_parameters,
    count_parameters,
    forward_flops,
    parameter_bytes,
    training_flops,
)
from .data import (
    BPETokenizer,
    CharTokenizer,
    load_digits,
    load_genre,
    load_plays,
    load_shakespeare,
    load_text,
    train_bpe,
)
from .gradcheck import check_gradients, directional_error, numerical_gradient, tree_directional_error
from .growth import anneal_tau, grow, grow_state, net2net_widen
from .merge import (
    MergedConfig,
    caption_backward,
    caption_forward,
    caption_images,
    caption_loss_and_grads,
    evaluate_captions,
    image_part,
    merge_models,
    put_new,
    spell,
    take_new,
    text_part,
)
from .model import (
    TokenformerConfig,
    TransformerConfig,
    backward,
    check_params,
    forward,
    generate,
    generate_steps,
    init_params,
    loss_and_grads,
    parameter_shapes,
)
from .nested import nested_loss_and_grads, prefix, prefix_backward
from .ops import (
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    normal_cdf_pdf,
    softmax_backward,
    softmax_forward,
)
from .optim import adamw_init, adamw_step, clip_by_global_norm, warmup_cosine
from .pattention import pattention_backward, pattention_forward, theta_backward, theta_forward
from .top_k import top_k_pattention_backward, top_k_pattention_forward
from .train import TrainConfig, TrainingDiverged, evaluate, train_model
from .transfer import (
    append_tokens,
    join,
    lora_init,
    lora_loss_and_grads,
    merge_lora,
    new_tokens_loss_and_grads,
    remove_tokens,
)
from .vision import (
    cut_patches,
    evaluate_images,
    image_backward,
    image_forward,
    image_loss_and_grads,
    init_image_params,
    overlap_patches,
    patch_embedding_backward,
    patch_embedding_forward,
    train_image_model,
    warp_images,
)

"""What we do about the quirks of the published model and its code, one by one.

Keys are those of the model contract: J.1 to J.35 are its list of traps, the others name a section.
"kept" means as published, also where it is strange; "fixed" means that we differ and why; what
cannot arise here is "not applicable". `tests/export/test_quirks.py` names the tests of each.

Prompt
  B.2-system     fixed: no system turn is appended behind the conversation; ours stands first
  B.2-history    fixed: a spoken reply stays as the codes drawn, not as re-encoded sound
  B.2-special    fixed: special tokens typed by a user are characters, they steer nothing
  B.2-content    kept: content is tokenized as it is: nothing stripped, no thinking block
  B.2-batch      not applicable: left padding with (151643, 512): there is one conversation, no
                 batch
  B.2-modality   kept: a turn is either text or speech, and so is what is asked of a reply

Generation
  C.1-start      kept: mode after the prompt: 151667 sets audio, then 512 sets text
  C.1-order      kept: text to audio is tested before audio to text, so one row may do both
  C.2-mask       kept: audio ids above 16384 are never drawn
  C.2-forgotten  fixed: rows that left a full memory are no longer penalised
  C.2-minimum    kept: text may not stop in its first `min_new_tokens` rows; of the two ports one
                 does so, as stock processors do, the other does not model it
  C.2-ties       kept: ids that tie with the last of the top k stay; greedy takes the lowest
  C.2-discarded  fixed: only the channel that counts is drawn: the random stream differs
  C.2-idle       fixed: text rows hold 512, not a discarded audio sample; only the penalty of the
                 audio channel can tell
  C.2-stop       kept: the row that stops a reply stays in the conversation
  C.2-think      fixed: 151667 is not drawn in text mode: it would be embedded as speech
  C.2-closing    fixed: speech ends at 16384; the rows that the model would draw behind it,
                 <|im_end|> and newline, are appended without asking it
  C.3            kept: defaults are those of the official interface, but for what a checkpoint's
                 generation_config.json states
  C.4-row        fixed: no last row is dropped: a reply cut by the budget keeps its last code
  C.4-channel    fixed: codes are taken from spoken rows only, never from text rows
  C.4-range      fixed: a code of 16384 or more never reaches the flow, nor does an empty list
  C.5-row        fixed: a written reply keeps its last token too
  C.5-rewrite    kept: <|empty|> and <|end_empty|> are shown as a full stop and a colon
  C.5-utf8       fixed: a streamed reply shows whole characters only
  C.6-voice      not applicable: the misspelt path of the default voice: voices are files of the
                 bundle
  C.6-streamer   not applicable: a streamer that does nothing: there is no `generate`
  C.6-loss       not applicable: the loss with the wrong vocabulary size: nothing is fine-tuned here
  C.6-dtype      not applicable: loading as float32 by default: tensors are read one at a time
  C.6-ui         not applicable: a user interface imported with the model

Language model
  A.2-tied       fixed: heads and embeddings are four tables, whatever the attribute says
  A.3-rope       fixed: the runtime's angles are float64, so they do not drift with position
  A.3-rounding   fixed: no rounding to bfloat16 between operations: engines compute in float32
  A.3-last       kept: heads see the last row only, as the contract permits
  J.1            kept: 40 layers: 36 counts the trunk and one branch
  J.2            kept: theta must be stated; half-split rotation after the q/k norm; the norm is
                 rounded before its weight
  J.3            kept: embeddings are selected, never summed; no model.norm, no lm_head
  J.4            kept: neither a chat template nor a parser of thoughts sees 151667
  J.5            kept: pieces are tokenized separately
  J.6            fixed: see B.2-system
  J.7            kept: 512 is a code like any other on spoken rows
  J.8            kept: the first row of a spoken reply is speech; its text id is 151667
  J.9            kept: both branches run every row, a sleeping one later and in one batch
  J.10           kept: the penalty sees prompt, pads and ends of speech, per channel
  J.11           kept: speech may first end with row `min_new_tokens`, counted from 1
  J.12           kept: only 16384 or the row budget ends speech
  J.13           fixed: see C.4-row
  J.14           kept: ties go to the lowest id; equality across kernels is asked of logits

Speech tokenizer
  D.3-config     not applicable: preprocessor_config.json pads to 30 s; J.17 is what the codec does
  D.4-stream     fixed: features of each 80 ms by themselves, as in the author's experiment, give
                 other codes; ours stream exactly, but for J.18
  J.15           kept: 16 layers, no final norm, no bias in k_proj, exact GELU
  J.16           kept: plain causal attention, block size ignored; zeros on the left only
  J.17           kept: multiples of 1280 samples, ceil(n / 1280) codes, segments of 30 s
  J.18           fixed: the floor follows the loudest bin so far, at least an assumed one; the
                 offline rule is kept for enrolment and for measuring
  J.19           kept: channel 0; windowed sinc of 6 zero crossings, roll-off 0.99
  J.20           kept: names without the prefix are ignored, needed ones must all be there

Voice
  E.6-buffer     not applicable: the estimator's output in its input buffer: an engine has two
  E.8-rate       kept: prompt codes come from the recording's own rate, as in one of two ports
  E.8-length     fixed: a voice is made of 1 to 40 s; upstream sets no limit, its own prompts have
                 up to 36 s, and what a prompt costs grows with it
  E.9            fixed: replies are decoded as they grow, by the chunk-trained weights; the official
                 default decodes whole ones by flow.pt
  E.10-hop       not applicable: misaligned hops: chunks are counted from the start of the prompt
  E.10-context   fixed: the left context is unlimited for as long as its state fits into 1 GiB, at
                 the published size 200 frames of reply; later frames see the prompt and the last
                 180, unlike in training. `voice_window_frames` sets how many
  E.10-prefix    fixed: nothing is computed twice: each chunk continues cached state
  E.10-methods   not applicable: the codec class's own streaming methods give the wrong length
  F.3-random     fixed: no initial phases and no unused noise are drawn: neither is heard
  F.4-phase      fixed: harmonics run on between blocks; `Vocoder(parity=True)` restarts them
  J.21           kept: chunk weights with their own chunk size, chosen by file name
  J.22           fixed: the last chunk keeps the streaming mask, and so agrees with the one before.
                 The switch is in the reference: `Flow.generate(chunk=0)` ends as upstream does
  J.23           kept: start noise of the seed 0, shipped, by absolute frame, at most 300 s
  J.24           kept: guidance 1.7 and 0.7, the second half without any condition
  J.25           kept: LayerNorm in causal blocks; 1e-12 in the encoder's blocks, else 1e-5
  J.26           kept: look-ahead tokens are embedded; zeros follow only at the end
  J.27           kept: slopes 0.01 and 0.1
  J.28           fixed: attention of 512 for 256 channels; masked by -6e4, not by -1e10, which
                 float16 does not hold: equal once the softmax is taken
  J.29           kept: weight norm over all dimensions but the first; epoch, step dropped
  J.30           kept: source convolutions from coarse to fine, one sample reflected
  J.31           kept: noise is an input of the engine; drawn from a seed of the session
  J.32           fixed: the cross-fade adds up to 1; `Vocoder(parity=True)` has 1.08. The overlap
                 stays 8 frames
  J.33           kept: prompts have P codes and 4P frames, and no code of 16384 or more
  J.34           fixed: no global generator is seeded; config.yaml is never carried out
  J.35           kept: codebook search in float32 on exact rows; heads keep eight bits
"""

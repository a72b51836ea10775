-- The physical tables. A comment after a column, or above a table, becomes its COMMENT in the store.
-- Routed rows lie in routes_<k> (one row per decision, see physical/tables.py); `decisions` and `assignments` are views over them.

-- What the file is: schema_version, the writer's version, when it was made, the parts that were joined to it
create table meta (
  key varchar, -- schema_version | writer | created | joined
  value varchar -- its value as text
);

-- Rows of large runs that lie apart from this file, in STORE.parts; `moescope pack STORE` brings them in
create table apart (
  part varchar, -- name of their folder in STORE.parts
  run uinteger, -- runs.run
  "table" varchar, -- the table or kept sum that they are rows of
  moved json, -- what is added to their keys: {forward, sequence, token, router}; and what run and model are
  ends json, -- the first free key behind them: {forward, sequence, token}
  columns json, -- of their files, which all have the same
  files json -- in order, by the folder in which each lies: its length, CRC-32, and first and last of token and sequence
);

-- Models that were traced; the same weights and configuration share a row
create table models (
  model uinteger, -- key
  name varchar, -- as the user named it: a specimen, a folder, a hub name, a class
  family varchar, -- model_type of the configuration, e.g. mixtral
  config json, -- the whole configuration
  weights_sha256 varchar, -- hash of all weights; starts with 'sample:' when only a sample of each tensor was read
  parameters ubigint, -- number of parameters
  dtype varchar, -- of the weights as loaded
  quantization varchar, -- method, or null
  code varchar -- class and package version that ran the model
);

-- One row per trace
create table runs (
  run uinteger, -- key
  uid varchar, -- never changes, also when files are merged
  model uinteger, -- models.model
  name varchar, -- the user's name for this run
  status varchar, -- complete | interrupted | running
  started timestamp, -- UTC
  finished timestamp, -- UTC; null while it runs
  dataset varchar, -- what was read
  dataset_sha256 varchar, -- hash of it
  seed ubigint, -- of sampling and shuffling
  device varchar, -- cpu, cuda:0, ...
  dtype varchar, -- of the computation
  capture json, -- what was recorded, of which routers, at what sampling rate
  overrides json, -- changes to the model: capacity, batch priority, an intervention
  versions json, -- moescope, torch, transformers, duckdb, python
  command json, -- the command line, as a list
  host varchar, -- machine class
  proof json, -- per router: what was checked at attach time, and the largest error
  warnings json, -- sentences: NaN logits, mismatches, skipped input
  progress json, -- how far it got: batches, examples, of how many
  forwards uinteger, -- forward passes recorded
  sequences uinteger, -- sequences recorded
  tokens ubigint, -- tokens recorded (padding never is)
  decisions ubigint, -- router × token
  assignments ubigint, -- chosen experts over all decisions, dropped ones included
  seconds double, -- wall time from attach to close
  model_seconds double, -- wall time inside the model's forward passes
  trace_seconds double -- wall time the traced program spent in moescope (hooks, hand-over, waiting for the writer)
);

-- The routers of a run
create table routers (
  router uinteger, -- key
  run uinteger, -- runs.run
  name varchar, -- the module's path in the model
  layer smallint, -- the decoder (or encoder) layer's own number; dense layers leave gaps
  stack varchar, -- decoder | encoder | vision | text | talker ...
  block_type varchar, -- ffn | attention | ...
  contract varchar, -- how this router speaks (moescope.contracts)
  kind varchar, -- token_choice | expert_choice | soft | static | hash | dense | tree | global | depth | sampled
  experts usmallint, -- routed experts, E
  top_k usmallint, -- experts per decision; null where it varies
  shared_experts usmallint, -- experts that always run beside the routed ones
  score varchar, -- what the logits become: softmax | sigmoid | sqrtsoftplus | probabilities | none
  weight_on varchar, -- what the weight multiplies: output | input | delta (of an adapter) | parameters | residual | vector
  capacity_factor float, -- null without capacity
  extra json, -- groups, bias, scale, and whatever else the contract knows
  decides_on varchar, -- what one decision is about: token | sequence | batch
  pool_axes varchar, -- which axes compete in one top-k: E (experts) | L (tokens of a sequence) | BL | BE | LE | BLE (B: the batch)
  parent_router varchar, -- in a tree: name of the router whose expert this one is; null at the root
  parent_expert usmallint -- in a tree: which of its experts
);

-- The experts of a router
create table experts (
  router uinteger, -- routers.router
  expert usmallint, -- number within the router; numbers from routers.experts on are no routed experts, see role
  role varchar, -- routed | identity | skip | null (gives nothing) | shared | residual ...
  expert_name varchar -- where experts have names: adapters, streams, whole models; else null
);

-- Texts, images or other units of input; encoder and decoder sides are sequences of their own
create table sequences (
  sequence uinteger, -- key
  run uinteger, -- runs.run
  source varchar, -- file or data set
  source_row ubigint, -- row within the source
  part usmallint, -- a long text is traced in windows: 0, 1, ...
  beam usmallint, -- beam or returned-sequence number, else 0
  document varchar, -- the unit of the bootstrap
  stack varchar, -- decoder | encoder | vision
  domain varchar, -- the label of that name, where given
  class varchar, -- the label of that name, where given
  text varchar, -- of text input, as read
  tokens uinteger, -- number of tokens at the start (generated ones follow)
  height usmallint, -- patches down, for images
  width usmallint -- patches across, for images
);

-- Every label of a sequence: domain, class, genre, language, ...
create table sequence_labels (
  sequence uinteger, -- sequences.sequence
  kind varchar, -- name of the label
  label varchar -- its value
);

-- Tokens: text tokens, image patches
create table tokens (
  token uinteger, -- key
  run uinteger, -- runs.run
  sequence uinteger, -- sequences.sequence
  position uinteger, -- place in the sequence, from 0; padding is not counted
  parent uinteger, -- beams: the token before it in its own hypothesis, since beams change rows; else null
  unit varchar, -- text | patch | cls | image, video, audio (a piece of one in a text) | sequence, batch (decided of as a whole) | row (tokens that could not be named)
  vocab_id uinteger, -- the tokenizer's id, for text
  word uinteger, -- number of the word in the sequence that it belongs to, where words are labelled
  y usmallint, -- patch row; of a piece of an image in a text its row in the image (videos: token label `frame`)
  x usmallint, -- patch column
  special boolean, -- a special token of the tokenizer
  generated boolean -- made by the model in this run
);

-- Labels of tokens: upos, deprel, supersense, ...
create table token_labels (
  token uinteger, -- tokens.token
  kind varchar, -- name of the label
  label varchar -- its value
);

-- Pictures, and frames of films, that sequences speak of: small, so that pages can lay tokens over them
create table pictures (
  run uinteger, -- runs.run
  sequence uinteger, -- sequences.sequence
  medium varchar, -- 'image 0', 'video 1': its kind and number in the sequence, as in the token label `medium`
  frame usmallint, -- of a film, as in the token label `frame`; null of a picture
  "view" varchar, -- overview | tiles, of a picture that is cut into tiles, as in the token label `view`; else null
  height uinteger, -- pixels down: of the picture as it was given, or as the model saw it where it was cropped, padded or cut
  width uinteger, -- pixels across
  file blob -- PNG or JPEG, no side longer than 512 pixels
);

-- Vocabulary ids met in the runs
create table vocab (
  model uinteger, -- models.model
  vocab_id uinteger, -- the tokenizer's id
  text varchar -- the token as text
);

-- Forward passes
create table forwards (
  forward uinteger, -- key
  run uinteger, -- runs.run
  phase varchar, -- prefill | decode | train | eval (while a run trains) | forward
  step uinteger, -- training step (eval: steps done before), or number of the forward within one generation
  batch_size uinteger, -- sequences in the batch
  tokens uinteger, -- tokens recorded
  seconds double, -- wall time of the pass
  loss float -- where the model returned one
);

-- What a forward pass was told beside its tokens: timestep, sigma, class, task, guidance, stage, ...
create table conditions (
  run uinteger, -- runs.run
  forward uinteger, -- forwards.forward
  sequence uinteger, -- sequences.sequence that it holds for; null: for all of them
  kind varchar, -- timestep | sigma | class | task | guidance | stage | whatever the tracer was told
  value double, -- where it is a number
  label varchar -- where it is a word (class and task too)
);

-- Competition groups with a capacity: tokens that compete for the same buffers
create table pools (
  run uinteger, -- runs.run
  forward uinteger, -- forwards.forward
  router uinteger, -- routers.router
  pool uinteger, -- number within the forward and router
  tokens uinteger, -- tokens in the pool, padding included
  capacity uinteger, -- places per expert; null where a threshold decides
  threshold float -- the least score that is taken, where that decides; else null
);

-- Router logits, where asked for
create table logits (
  run uinteger, -- runs.run
  forward uinteger, -- forwards.forward
  router uinteger, -- routers.router
  iteration utinyint, -- recursion step, else 0
  token uinteger, -- tokens.token
  logits float[] -- as the router returned them; routers.score says what they become
);

-- Decisions without a fixed k (expert choice, soft routing): the decision ...
create table decisions_long (
  run uinteger, -- runs.run
  forward uinteger, -- forwards.forward
  router uinteger, -- routers.router
  iteration utinyint, -- recursion step, else 0
  token uinteger, -- tokens.token
  pool uinteger, -- pools.pool
  selected usmallint, -- experts that ran
  log_sum_exp float, -- of the logits
  entropy float, -- nats
  margin float -- least chosen minus best unchosen probability
);

-- ... and its experts
create table assignments_long (
  run uinteger, -- runs.run
  forward uinteger, -- forwards.forward
  router uinteger, -- routers.router
  iteration utinyint, -- recursion step, else 0
  token uinteger, -- tokens.token
  rank usmallint, -- 0 = largest weight
  expert usmallint, -- experts.expert
  weight float, -- what multiplied the expert
  slot usmallint, -- the router's own order
  buffer_position uinteger, -- place in the expert's buffer, or soft slot
  dispatch_weight float, -- soft routing: share of this token in the slot's input
  dropped boolean -- chosen but not run, for want of capacity; of a sampled mixture, because another component was drawn
);

-- Results that are not decisions
create table measures (
  run uinteger, -- runs.run
  router uinteger, -- routers.router, or null
  layer smallint, -- or null
  expert usmallint, -- or null
  name varchar, -- of the measure
  estimator varchar, -- form of it: paper | code | naive | unbiased ...
  subset varchar, -- of what: a domain, a phase, a label, a module
  iteration usmallint, -- number of the module's firing within a forward pass, from 0, for modules that fire more than once
  value double, -- in the measure's unit
  ci_low double, -- bootstrap interval
  ci_high double, -- bootstrap interval
  chance double, -- what chance gives
  p double, -- against the null
  n ubigint, -- tokens or decisions
  units ubigint, -- documents or images
  extra json -- anything else
);

-- Effects of taking experts away, by group of tokens (moescope ablate)
create table ablations (
  run uinteger, -- runs.run of the baseline
  ablation varchar, -- key of the sweep: what was asked for
  router uinteger, -- routers.router; null where the set spans several
  expert usmallint, -- null where the set has several
  experts json, -- the set: {router path: [experts]}
  mode varchar, -- zero | mean | route-around
  load double, -- share of its routers' assignments that the set had in the baseline
  control varchar, -- none: against the baseline; load, random: minus the change of control sets; router: group × expert
  controls json, -- the control sets
  group_kind varchar, -- all | position | token | domain, upos, ... (a label)
  "group" varchar, -- its value
  counted_at varchar, -- target: the group is of the token predicted; input: of the token read
  n ubigint, -- tokens (or images) in the group
  units ubigint, -- documents (or images) they come from
  delta_nll double, -- change of the mean negative log-likelihood, nats per token; above 0: the set was needed
  ci_low double, -- document bootstrap, 95 %
  ci_high double, -- document bootstrap, 95 %
  p double, -- signs of the documents' sums flipped, two-sided
  q double, -- Benjamini-Hochberg over the sweep, by control and group kind
  control_delta_nll double, -- what the control sets change; 0 for none
  baseline_nll double, -- of the group without ablation, nats per token
  kl double, -- mean divergence of the output distribution, baseline from ablated, nats
  delta_correct double, -- change of top-1 accuracy
  delta_margin double, -- change of log p(target) minus log p of the best other
  rerouted double -- share of later decisions that chose another set of experts
);

-- Kept sums: assignments by expert
create table load_rollup (
  run uinteger, -- runs.run
  router uinteger, -- routers.router
  expert usmallint, -- experts.expert
  assignments ubigint, -- not dropped
  first ubigint, -- of them, with rank 0
  dropped ubigint, -- chosen but not run
  weight double -- sum of weights of what ran
);

-- Kept sums: pairs of experts that ran for one token
create table coactivation_rollup (
  run uinteger, -- runs.run
  router uinteger, -- routers.router
  expert usmallint, -- the smaller number
  other usmallint, -- the larger number
  n ubigint -- tokens
);

-- Kept sums: first expert in one router, first expert in the next of the same stack
create table transition_rollup (
  run uinteger, -- runs.run
  router uinteger, -- from
  next_router uinteger, -- to
  expert usmallint, -- from
  next_expert usmallint, -- to
  n ubigint -- tokens
);

-- Kept sums: assignments by expert and sequence label
create table label_rollup (
  run uinteger, -- runs.run
  router uinteger, -- routers.router
  kind varchar, -- sequence_labels.kind
  label varchar, -- sequence_labels.label
  expert usmallint, -- experts.expert
  assignments ubigint, -- not dropped
  first ubigint, -- of them, with rank 0
  weight double -- sum of weights of what ran
);

-- Kept sums: assignments by expert and vocabulary id
create table vocab_rollup (
  run uinteger, -- runs.run
  router uinteger, -- routers.router
  vocab_id uinteger, -- vocab.vocab_id
  expert usmallint, -- experts.expert
  assignments ubigint, -- not dropped
  first ubigint -- of them, with rank 0
);

-- Kept sums: the decisions of a router
create table decision_rollup (
  run uinteger, -- runs.run
  router uinteger, -- routers.router
  decisions ubigint, -- tokens looked at
  selected ubigint, -- experts that ran, over all of them
  unrouted ubigint, -- decisions for which no expert ran
  entropy double, -- mean, nats
  entropy_sd double, -- standard deviation
  margin double, -- mean
  z double, -- mean squared log-sum-exp: the router z-loss
  nonfinite ubigint -- decisions whose entropy is NaN or infinite
);

-- The views people ask. A comment after a column, or above a view, becomes its COMMENT in the store.
-- `decisions` and `assignments` are made by physical/tables.py, over whatever routes_<k> tables there are.

-- Load of every expert: one row per run, router and expert, dead ones included
create view expert_load as
select
  r.run, -- runs.run
  r.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  e.expert, -- expert
  coalesce(l.assignments, 0) as assignments, -- times it ran for a token
  coalesce(l.first, 0) as first, -- of them, as the token's first choice
  coalesce(l.dropped, 0) as dropped, -- times it was chosen but not run, for want of capacity
  coalesce(l.weight, 0) as weight, -- sum of its routing weights
  coalesce(l.assignments, 0) / nullif(sum(l.assignments) over router, 0) as share, -- of the router's assignments; even load is 1 / experts
from routers r join experts e using (router) left join load_rollup l on l.router = e.router and l.expert = e.expert
where e.role = 'routed'
window router as (partition by r.router);

-- Load balance of every router
create view load_balance as
select
  run, -- runs.run
  router, -- routers.router
  stack, -- decoder | encoder | vision
  layer, -- the layer's own number
  count(*) as experts, -- routed experts
  sum(assignments) as assignments, -- of all experts
  sum(dropped) / nullif(sum(assignments + dropped), 0) as dropped_share, -- chosen but not run
  -sum(case when share > 0 then share * log2(share) else 0 end) as entropy_bits, -- entropy of the load
  log2(count(*)) as max_bits, -- entropy of even load
  entropy_bits / nullif(max_bits, 0) as normalized, -- 1 = even
  max(share) * count(*) - 1 as max_violation, -- MaxVio: (largest load - mean) / mean
  arg_max(expert, share) as busiest, -- expert with the largest load
  max(share) as busiest_share, -- its share
  count(*) filter (assignments = 0) as dead, -- experts that never ran
from expert_load group by all;

-- Everything about a router in one row: what it is, and how sure it was
create view router_summary as
select
  r.*,
  b.entropy_bits as load_entropy_bits, -- of the load
  b.max_bits, -- of even load
  b.dropped_share, -- chosen but not run
  b.dead, -- experts that never ran
  b.max_violation, -- MaxVio
  d.decisions, -- tokens looked at
  d.unrouted, -- decisions for which no expert ran
  d.entropy as routing_entropy, -- mean entropy of a decision, nats
  d.margin, -- mean margin
  d.z as z_loss, -- mean squared log-sum-exp
  d.nonfinite, -- decisions with NaN or infinite logits
from routers r left join load_balance b using (router) left join decision_rollup d using (router);

-- Pairs of experts that ran for the same token, in both directions
create view coactivation as
select
  c.run, -- runs.run
  c.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  c.expert, -- expert
  c.other, -- the other expert
  c.n, -- tokens for which both ran
  c.n / nullif(l.assignments, 0) as share, -- of the expert's tokens (OLMoE's definition); chance is about (k-1)/(experts-1)
from (from coactivation_rollup union all select run, router, other, expert, n from coactivation_rollup) c
join routers r using (router) join load_rollup l on l.router = c.router and l.expert = c.expert;

-- From the first expert of a token in one router to its first expert in the next
create view transitions as
select
  t.run, -- runs.run
  t.router, -- from
  t.next_router, -- to: the next one of the stack
  r.stack, -- decoder | encoder | vision
  r.layer, -- from
  n.layer as next_layer, -- to
  t.expert, -- from
  t.next_expert, -- to
  t.n, -- tokens
  t.n / sum(t.n) over (partition by t.router, t.next_router, t.expert) as share, -- of the tokens of `expert`
from transition_rollup t join routers r on r.router = t.router join routers n on n.router = t.next_router;

-- Load by sequence label (domain, class, language, ...), with its chance level
create view label_load as
select
  x.run, -- runs.run
  x.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  x.kind, -- which label
  x.label, -- its value
  x.expert, -- expert
  x.assignments, -- times it ran for tokens with this label
  x.assignments / sum(x.assignments) over (partition by x.router, x.kind, x.label) as share, -- of the label's assignments
  coalesce(l.assignments, 0) / sum(l.assignments) over (partition by x.router, x.kind, x.label) as overall, -- the expert's share of the tokens of every label: what `share` is by chance
from label_rollup x join routers r using (router) left join load_rollup l on l.router = x.router and l.expert = x.expert;

-- Load by token label (modality, role, upos, supersense, ...), with its chance level; counted when it is asked for
create view token_label_load as
with met as (
  select a.run, a.router, l.kind, l.label, a.expert, count(*) as assignments
  from assignments a join token_labels l using (token) where not a.dropped group by all
)
select
  m.run, -- runs.run
  m.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  m.kind, -- which label
  m.label, -- its value
  m.expert, -- expert
  m.assignments, -- times it ran for tokens with this label
  m.assignments / sum(m.assignments) over (partition by m.router, m.kind, m.label) as share, -- of the label's assignments
  sum(m.assignments) over (partition by m.router, m.kind, m.expert) / sum(m.assignments) over (partition by m.router, m.kind) as overall, -- the expert's share of all tokens with a label of this kind: what `share` is by chance
from met m join routers r using (router);

-- Load by vocabulary id, with its chance level: which tokens an expert takes
create view vocab_load as
select
  x.run, -- runs.run
  x.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  x.expert, -- expert
  x.vocab_id, -- the tokenizer's id
  v.text, -- the token as text
  x.assignments, -- times the expert ran for this id
  x.first, -- of them, as the token's first choice
  x.assignments / sum(x.assignments) over (partition by x.router, x.vocab_id) as share, -- of the id's assignments
  l.assignments / t.assignments as overall -- the expert's share of all assignments of the router: what `share` is by chance
from vocab_rollup x join routers r using (router) join load_rollup l on l.router = x.router and l.expert = x.expert
join (select router, sum(assignments) as assignments from load_rollup group by all) t on t.router = x.router
join runs u on u.run = x.run left join vocab v on v.model = u.model and v.vocab_id = x.vocab_id;

-- Tokens with their text and the sequence they stand in
create view token_text as
select
  t.*,
  v.text, -- the token as text; null for patches
  s.document, -- unit of the bootstrap
  s.stack, -- decoder | encoder | vision
  s.domain, -- label of the sequence
  s.class, -- label of the sequence
from tokens t join sequences s using (sequence) join runs u on u.run = t.run
left join vocab v on v.model = u.model and v.vocab_id = t.vocab_id;

-- routing and routing_decisions join for themselves what token_text joins: by that view DuckDB 2 took 2.6 CPU s instead of 0.5 (0.9
-- instead of 0.2) to count 3 M decisions by domain, 0.15 instead of 0.03 for one token; the rows are equal.

-- One row per assignment with everything one asks for: where, which expert, for which token, in which text
create view routing as
select
  a.run, -- runs.run
  f.phase, -- prefill | decode | train | eval | forward
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  a.router, -- routers.router
  a.token, -- tokens.token
  t.sequence, -- sequences.sequence
  t.position, -- place in the sequence
  t.vocab_id, -- the tokenizer's id
  v.text, -- the token as text
  t.generated, -- made by the model in this run
  a.rank, -- 0 = largest weight
  a.expert, -- expert
  a.weight, -- what multiplied it
  a.dropped, -- chosen but not run
  s.document, -- unit of the bootstrap
  s.domain, -- label of the sequence
  s.class, -- label of the sequence
from assignments a join routers r using (router) join forwards f using (forward) join tokens t using (token)
join sequences s on s.sequence = t.sequence join runs u on u.run = a.run
left join vocab v on v.model = u.model and v.vocab_id = t.vocab_id;

-- One row per decision with everything one asks for: where, how sure, for which token, in which text
create view routing_decisions as
select
  d.run, -- runs.run
  f.phase, -- prefill | decode | train | eval | forward
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  d.router, -- routers.router
  d.iteration, -- recursion step, else 0
  d.token, -- tokens.token
  t.sequence, -- sequences.sequence
  t.position, -- place in the sequence
  t.vocab_id, -- the tokenizer's id
  v.text, -- the token as text
  t.generated, -- made by the model in this run
  d.selected, -- experts that ran
  d.entropy, -- of the router's distribution, nats
  d.margin, -- least weight chosen minus the best not chosen
  d.log_sum_exp, -- of the logits
  s.document, -- unit of the bootstrap
  s.domain, -- label of the sequence
  s.class, -- label of the sequence
from decisions d join routers r using (router) join forwards f using (forward) join tokens t using (token)
join sequences s on s.sequence = t.sequence join runs u on u.run = d.run
left join vocab v on v.model = u.model and v.vocab_id = t.vocab_id;

-- Labels of tokens of every kind: those of the token's word, and those of its sequence
create view labels as
select
  token, -- tokens.token
  kind, -- upos, deprel, domain, class, ...
  label, -- its value
  'token' as level, -- token | sequence
from token_labels
union all
select t.token, l.kind, l.label, 'sequence' from sequence_labels l join tokens t using (sequence);

-- First expert of every token through all layers
create view paths as
select
  a.run, -- runs.run
  a.forward, -- forwards.forward
  r.stack, -- decoder | encoder | vision
  a.token, -- tokens.token
  list(a.expert order by r.layer, r.router, a.iteration) as experts, -- first choice, layer by layer
  list(r.layer order by r.layer, r.router, a.iteration) as layers, -- the layers' numbers
from assignments a join routers r using (router) where a.rank = 0 group by all;

-- What taking experts away does, by group of tokens, with controls: effects of `moescope ablate`
create view ablation_effects as
select
  a.run, -- runs.run of the baseline
  a.router, -- routers.router; null where the set spans several
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  a.expert, -- null where the set has several
  a.experts, -- the set: {router path: [experts]}
  a.mode, -- zero | mean | route-around
  a.load, -- share of the assignments that the set had
  a.control, -- none: against the baseline; load, random: minus what control sets change; router: more than in other groups, and more than without the router's other experts
  a.group_kind, -- all | position | token | a kind of label
  a."group", -- its value
  a.counted_at, -- target: the token predicted; input: the token read
  a.n, -- tokens or images
  a.units, -- documents or images they come from
  a.delta_nll, -- change of the loss, nats per token
  a.ci_low, -- document bootstrap, 95 %
  a.ci_high, -- document bootstrap, 95 %
  a.p, -- sign flips over documents
  a.q, -- false discovery rate
  a.control_delta_nll, -- what the control sets change
  a.delta_nll / nullif(a.load, 0) as per_load, -- change per share of load: frequency misleads where this differs between experts
  a.baseline_nll, -- of the group without ablation
  a.kl, -- of the output distribution, nats
  a.delta_correct, -- change of accuracy
  a.delta_margin, -- change of the margin
  a.rerouted, -- share of later decisions that changed
from ablations a left join routers r on r.router = a.router;

-- Training runs: health of every router at every recorded step, training and evaluation apart
create view training as
select
  m.run, -- runs.run
  cast(regexp_extract(m.subset, '[0-9]+$') as uinteger) as step, -- optimizer steps done with it; of an evaluation: before it
  case when m.subset like 'step %' then 'train' else 'eval' end as phase, -- train (micro-batches of a step summed) | eval
  case when m.subset not like 'step %' then regexp_replace(m.subset, ' step [0-9]+$', '') end as evaluation, -- its name: eval, eval_NAME, test; forward: of a run that does not train; null in training
  r.stack, -- decoder | encoder | vision
  m.layer, -- the layer's own number
  m.router, -- routers.router
  any_value(m.value) filter (m.name = 'load_entropy') as load_entropy, -- of 1 = even
  any_value(m.value) filter (m.name = 'max_violation') as max_violation, -- MaxVio
  any_value(m.value) filter (m.name = 'dead') as dead, -- experts without a token
  any_value(m.value) filter (m.name = 'dropped_share') as dropped_share, -- chosen but not run
  any_value(m.value) filter (m.name = 'routing_entropy') as routing_entropy, -- mean, nats
  any_value(m.value) filter (m.name = 'z_loss') as z_loss, -- mean squared log-sum-exp
  any_value(m.value) filter (m.name = 'balance_switch') as balance_switch, -- balancing loss, 1 when even
  any_value(m.value) filter (m.name = 'balance_transformers') as balance_transformers, -- the same, k when even
  any_value(m.n) as tokens, -- that the router looked at
from measures m join routers r using (router)
where regexp_full_match(m.subset, '(.+ )?step [0-9]+') and m.name in ('load_entropy', 'max_violation', 'dead', 'dropped_share',
  'routing_entropy', 'z_loss', 'balance_switch', 'balance_transformers')
group by all;

-- Load of every expert under every condition that forwards were told: timestep, class, task, guidance ...
create view condition_load as
with met as (
  select a.run, a.router, c.kind, c.value, c.label, a.expert, count(*) as assignments
  from assignments a join tokens t using (token)
  join conditions c on c.forward = a.forward and (c.sequence is null or c.sequence = t.sequence)
  where not a.dropped group by all
)
select
  m.run, -- runs.run
  m.router, -- routers.router
  r.stack, -- decoder | encoder | vision
  r.layer, -- the layer's own number
  m.kind, -- timestep | sigma | class | task | guidance | stage | ...
  m.value, -- where it is a number
  m.label, -- where it is a word
  m.expert, -- expert
  m.assignments, -- times it ran under this condition
  m.assignments / sum(m.assignments) over (partition by m.router, m.kind, m.value, m.label) as share, -- of the assignments under it
  sum(m.assignments) over (partition by m.router, m.kind, m.expert) / sum(m.assignments) over (partition by m.router, m.kind) as overall, -- the expert's share under all values of it: what `share` is by chance
from met m join routers r using (router);

-- How deep every token went: how many of the blocks that routers of kind `depth` can skip ran for it
create view token_depth as
select
  d.run, -- runs.run
  d.forward, -- forwards.forward
  d.token, -- tokens.token
  sum(d.selected) as depth, -- blocks and recursions that ran for it
  count(*) as considered, -- times that a router of kind depth looked at it
from decisions d join routers r using (router) where r.kind = 'depth' group by all;

-- Trees of routers: the weight of every leaf for every token, which is the product of the weights on the way to it
create view leaf_weight as
with recursive way as (
  select a.run, a.forward, a.iteration, a.token, a.router as root, r.name as at, a.expert, a.weight, [a.expert] as path
  from assignments a join routers r using (router)
  where r.parent_router is null and not a.dropped and exists (from routers c where c.run = r.run and c.parent_router = r.name)
  union all
  select w.run, w.forward, w.iteration, w.token, w.root, c.name, a.expert, w.weight * a.weight, list_append(w.path, a.expert)
  from way w join routers c on c.run = w.run and c.parent_router = w.at and c.parent_expert = w.expert
  join assignments a on a.router = c.router and a.forward = w.forward and a.iteration = w.iteration and a.token = w.token
  where not a.dropped
)
select
  w.run, -- runs.run
  w.forward, -- forwards.forward
  w.iteration, -- recursion step, else 0
  w.token, -- tokens.token
  w.root, -- the router at the tree's root
  w.path, -- the experts on the way, from the root on
  w.weight, -- product of their weights
from way w
where not exists (from routers c where c.run = w.run and c.parent_router = w.at and c.parent_expert = w.expert);

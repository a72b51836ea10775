-- Load of every expert
select stack, layer, expert, assignments, share
from expert_load where run = 0
order by share desc limit 100

-- Busiest and dead experts
select run, stack, layer, normalized, busiest, busiest_share, dead
from load_balance order by normalized

-- Tokens of one expert, by how much it prefers them
select text, assignments, share, overall, share / overall as lift
from vocab_load where run = 0 and expert = 0
  and layer = (select min(layer) from routers where run = 0) and assignments > 5
order by lift desc limit 50

-- Experts of a domain or class
select stack, layer, expert, kind, label, share, overall, share / overall as lift
from label_load where run = 0 and assignments > 50
order by lift desc limit 50

-- Experts by part of speech
select r.layer, l.label, r.expert, count(*) as n,
       count(*) / sum(count(*)) over (partition by r.layer, l.label) as share
from routing r join token_labels l using (token)
where r.run = 0 and r.rank = 0 and l.kind = 'upos'
group by r.layer, l.label, r.expert order by share desc limit 100

-- Route of one token
select layer, rank, expert, weight, text, document
from routing where token = (select min(token) + 7 from tokens where run = 0)
order by layer, rank

-- Pairs that run together
select layer, expert, other, n, share
from coactivation where run = 0
order by n desc limit 50

-- From layer to layer
select layer, next_layer, expert, next_expert, n, share
from transitions where run = 0
order by share desc limit 100

-- Commonest paths
select experts, count(*) as tokens
from paths where run = 0
group by experts order by tokens desc limit 30

-- Least certain tokens
select t.text, avg(d.entropy) as entropy, count(*) as n
from decisions d join token_text t using (token) where d.run = 0
group by t.text having n > 5
order by entropy desc limit 50

-- Prompts against what was generated
select layer, expert,
       count(*) filter (phase <> 'decode') / sum(count(*) filter (phase <> 'decode')) over (partition by router) as prompt,
       count(*) filter (phase = 'decode') / sum(count(*) filter (phase = 'decode')) over (partition by router) as generated
from routing where run = 0
group by router, layer, expert order by layer, expert

-- What taking an expert away does
select layer, expert, mode, group_kind, "group", delta_nll, ci_low, ci_high, q
from ablation_effects where run = 0 and control = 'none'
order by delta_nll desc limit 100

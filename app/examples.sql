-- Load of every expert
select stack, layer, expert, assignments, share
from expert_load where run = 0
order by share desc limit 100

-- Busiest and dead experts
select run, stack, layer, normalized, busiest, busiest_share, dead
from load_balance order by normalized

-- Tokens of one expert
select text, count(*) as n, avg(weight) as weight
from routing where run = 0 and layer = 0 and expert = 0
group by text order by n desc limit 50

-- Experts of a domain
select layer, expert, label, share, overall, share / overall as lift
from label_load where kind = 'domain' and assignments > 50
order by lift desc limit 50

-- Pairs that run together
select layer, expert, other, n, share
from coactivation where run = 0
order by n desc limit 50

-- Commonest paths
select experts, count(*) as tokens
from paths where run = 0
group by experts order by tokens desc limit 30

-- Least certain tokens
select t.text, avg(d.entropy) as entropy, count(*) as n
from decisions d join token_text t using (token) where d.run = 0
group by t.text having n > 5
order by entropy desc limit 50

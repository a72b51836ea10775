"""Routers by group: in a group no two routers have the same layer."""

GROUPS = """
with r as (
  select *, count(*) over (partition by stack, layer) as here, count(*) over (partition by stack, layer, block_type) as twins
  from routers where run = ?)
select router, concat_ws(' ', stack, coalesce(block_type, 'router'), case when twins > 1 then router end) as "group"
from r qualify max(here) over (partition by stack) > 1 order by router"""
"""Of stacks in which a layer has two routers (attention and ffn): stack and block type, and the number where they agree."""

"""The grammar of the query language, as data: query.lark. Installed as `energyql.grammar`."""

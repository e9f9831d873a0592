"""From a query and a model to pictures: settings, model, prepared query, result; scores of tables."""

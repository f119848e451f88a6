"""Pure functions from a record's marks to classes; QRS detection; splits by patient."""

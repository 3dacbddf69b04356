"""The rollout database's schema, step by step (Alembic). `edgekd.fleet.log` brings a database up to date."""

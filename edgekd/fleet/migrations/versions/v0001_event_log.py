"""Rollouts, their events, and who may write."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("created_at_s", sa.Float, nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
    )
    # One open rollout a model, whoever asks and however many ask at once.
    op.create_index(
        "one_open_rollout_a_model",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("is_open"),
        postgresql_where=sa.text("is_open"),
    )
    op.create_table(
        "events",
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("expires_at_s", sa.Float, nullable=False),
    )


def downgrade() -> None:
    for table in ("leases", "events", "rollouts"):
        op.drop_table(table)

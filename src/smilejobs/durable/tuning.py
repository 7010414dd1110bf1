"""The intervals and limits of a watch list and its workers. The defaults are for production; tests inject others."""

from attrs import frozen


@frozen(kw_only=True)
class Tuning:
    """Intervals and limits, each in the unit that its name ends with.

    Attributes:
        transaction_seconds: Time limit of a transaction on PostgreSQL that reads or writes many rows.
        quick_transaction_seconds: Time limit of one that touches a few rows, the check of the connection included.
        cancelled_transaction_seconds: Time left to a transaction on PostgreSQL whose task is cancelled.
        connect_seconds: Time limit for a new connection to PostgreSQL.
        lock_seconds: Time limit for a lock on PostgreSQL that another session holds.
        ping_seconds: Time limit for the answer to the check of a pooled connection.
        close_seconds: Time limit for closing connections in order; those that are still open then are cut.
        add_rows: Jobs that are added in one transaction.
        page_rows: Rows that a reader of the list reads at once.
        load_rows: Rows that a worker reads at once.
        change_rows: Rows that are deleted, or opened again, in one transaction; outcomes are stored between two.
        follow_seconds: Time between two reads for new outcomes.
        kept_notifications: Notifications that a SQLite file keeps while no worker reads them.
        silent_connection_seconds: Time after which a listening connection without notifications is checked.
        store_rows: Outcomes that are stored in one transaction.
        unstored_outcomes: Outcomes that may wait to be stored; polling waits beyond that.
        released_bucket_seconds: Time for which a worker still polls a bucket whose lease has ended: mostly the lease
            comes back, and no row has to be read again.
        stop_seconds: Time limit for storing outcomes and giving leases back when a worker stops; half of it for leases.
        liveness_heartbeats: Heartbeats for which a worker counts as alive in the health of the list.
        sync_pace_seconds: Time between two writes of what a worker has learned, up to a fifth more at random.
        stalled_seconds: Time for which a job may be pending before a missing worker is reported.
    """

    transaction_seconds: float = 60.0
    quick_transaction_seconds: float = 5.0
    cancelled_transaction_seconds: float = 2.0
    connect_seconds: int = 5
    lock_seconds: int = 10
    ping_seconds: float = 2.0
    close_seconds: float = 2.0
    add_rows: int = 5000
    page_rows: int = 500
    load_rows: int = 5000
    change_rows: int = 10_000
    follow_seconds: float = 0.5
    kept_notifications: int = 1000
    silent_connection_seconds: float = 5.0
    store_rows: int = 500
    unstored_outcomes: int = 2000
    released_bucket_seconds: float = 3.0
    stop_seconds: float = 8.0
    liveness_heartbeats: int = 3
    sync_pace_seconds: float = 60.0
    stalled_seconds: float = 15.0


DEFAULTS = Tuning()

"""Kafka's errors in our words: the codes of librdkafka and the classes of kafka-python.

Invariant: only what a new attempt may mend is Transient; a code nobody listed leaves as it came and
is fatal.
"""

import kafka.errors as admin_errors
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import LogReplaced, Misconfigured, Operator, Transient

TRANSIENT = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._FATAL,  # the idempotent producer gave up its session: open makes a new one
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._RESOLVE,  # a name server away for a moment looks the same as a wrong name
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
LOGIN = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
RIGHTS = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
GONE = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        # "Unknown topic id": the topic was deleted and made anew (librdkafka knows it by name
        # only).
        KafkaError.UNKNOWN_TOPIC_ID if hasattr(KafkaError, "UNKNOWN_TOPIC_ID") else 100,
    }
)

ADMIN_TRANSIENT = (
    admin_errors.KafkaConnectionError,
    admin_errors.KafkaTimeoutError,
    admin_errors.NodeNotReadyError,
    admin_errors.NotControllerError,
    admin_errors.RequestTimedOutError,
)
ADMIN_LOGIN = (
    admin_errors.SaslAuthenticationFailedError,
    admin_errors.IllegalSaslStateError,
    admin_errors.UnsupportedSaslMechanismError,
)


def translated(error: KafkaError, doing: str) -> Exception:
    """Our error for one of librdkafka's, to be raised `from KafkaException(error)`; `doing` is a
    verb phrase.
    """
    code = error.code()
    if code in LOGIN:
        return Misconfigured(
            f"could not log in to Kafka to {doing}",
            hint="check security.protocol, sasl.* and ssl.* in the log's options",
        )
    if code in RIGHTS:
        return Misconfigured(
            f"was denied the right to {doing}",
            hint="grant this user Read, Write, Create, Delete, Describe and DescribeConfigs on the "
            "source's topics",
        )
    if code in GONE:
        return LogReplaced(
            f"found a topic gone while trying to {doing}",
            hint="somebody deleted it: drop the log and copy anew, or restore the topic",
        )
    if code in TRANSIENT or error.retriable():
        return Transient(
            f"could not {doing} ({error.name()})", hint="check that the brokers are up"
        )
    return KafkaException(error)


def translated_admin(error: Exception, doing: str) -> Exception:
    """The same for kafka-python's errors."""
    if isinstance(error, ADMIN_LOGIN):
        return translated(KafkaError(KafkaError._AUTHENTICATION), doing)
    if isinstance(error, admin_errors.AuthorizationError):
        return translated(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), doing)
    if isinstance(error, ADMIN_TRANSIENT) or getattr(error, "retriable", False):
        return Transient(
            f"could not {doing} ({type(error).__name__})", hint="check that the brokers are up"
        )
    if isinstance(error, admin_errors.KafkaConfigurationError):
        return Misconfigured(f"could not {doing}: {error}", hint="check the log's options")
    return error


def size_refused(table: str, size_bytes: int, limit_bytes: int) -> Operator:
    """A row larger than the topic takes; nothing of its batch is committed."""
    return Operator(
        f"could not write a row of {table}: {size_bytes} bytes are more than the log takes",
        hint=f"raise max_record_bytes (now {limit_bytes}) and the topic's max.message.bytes, "
        "or exclude the column that is so large",
    )

#!/bin/sh
# The rights that each part of Headrace needs on the broker, and no others. Give each part a user of its own.
#
#   BOOTSTRAP=broker:9093 COMMAND_CONFIG=admin.properties deploy/kafka/acls.sh worker headrace-worker
#
# usage: acls.sh ROLE USER    ROLE: worker | producer | consumer | operator
#   USER             a SASL user's name, or a certificate's as ssl.principal.mapping.rules leaves it
#   BOOTSTRAP        the broker; COMMAND_CONFIG: the administrator's client properties (absent: a plain connection)
#   PREFIX           kafka.topic_prefix
#   GROUP            how the names of the part's groups begin, default headrace, for a consumer headrace-
#   KAFKA_ACLS       Kafka's own tool, default kafka-acls.sh
set -eu

[ $# -eq 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
role=$1 user=$2
prefix=${PREFIX:-} group=${GROUP:-headrace}

allow() { # what to allow, as Kafka's tool takes it; Read and Write allow to describe, too
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "${BOOTSTRAP:?the address of a broker}" \
        ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} --add --allow-principal "User:$user" "$@"
}

topics() { # --topic for each name
    for name; do printf -- '--topic %s ' "$prefix$name"; done
}

groups() { # kafka.group and what begins with it: readers beside the worker name their groups so, and never join one
    allow --operation Read --group "$group" --resource-pattern-type prefixed
}

inputs="user_actions impressions items recommendation_requests"
outputs="recommendations served_features dead_letters"

# shellcheck disable=SC2046,SC2086 # topic names hold no spaces
case $role in
worker) # reads events and the model's name, writes answers; commits what it answered; makes no topics
    allow --operation Read $(topics $inputs model_control)
    allow --operation Write $(topics $outputs)
    groups
    ;;
producer) # a shop: events, lists that were shown, catalogue, questions
    allow --operation Write $(topics $inputs)
    ;;
consumer) # whoever shows the recommendations, `headrace tail`
    allow --operation Read $(topics recommendations)
    group=${GROUP:-headrace-} # not the workers' own: who may read a group may join it, and take its partitions away
    groups
    ;;
operator) # headrace topics, models, train --from-kafka, dead-letters replay, doctor, rebuild
    allow --operation Create --operation DescribeConfigs --operation Read --operation Write \
        $(topics $inputs $outputs model_control)
    groups
    ;;
*)
    echo "no such role: $role (worker, producer, consumer, operator)" >&2
    exit 2
    ;;
esac

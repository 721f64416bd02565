//! Kafka's server keys that ask for something we do not do yet, and that it would be wrong to
//! ignore: whoever configures encryption must not get a broker without it.

use super::{
    ACCESS, ANY, Fallback, JAVA, Key, Kind, POLICY, REPORTERS, Range, SASL, TIERED, TLS, TOKENS,
    TWO_PHASE, Treatment, Updates, between, fallback, other_keys,
};

other_keys! {
    /// Refused, unless the value is the default or empty and so asks for nothing.
    REFUSED;
    Treatment::Refused(POLICY) => {
        "create.topic.policy.class.name" Class = none, ANY, ReadOnly,
            "Java class that decides whether a topic may be created.";
        "alter.config.policy.class.name" Class = none, ANY, ReadOnly,
            "Java class that decides whether a config may be changed.";
    }
    Treatment::Refused(TWO_PHASE) => {
        "transaction.two.phase.commit.enable" Boolean = "false", ANY, ReadOnly,
            "Whether transactions may take part in a two-phase commit.";
    }
    Treatment::Refused(JAVA) => {
        "client.quota.callback.class" Class = none, ANY, ReadOnly,
            "Java class that decides quotas.";
        "replica.selector.class" String = none, ANY, ReadOnly,
            "Java class that picks the replica a client reads from.";
        "config.providers" List = "", ANY, ClusterWide,
            "Names of providers of values such as ${file:/path:key}.";
    }
    Treatment::Refused(REPORTERS) => {
        "metric.reporters" List = "org.apache.kafka.common.metrics.JmxReporter", ANY, ClusterWide,
            "Java classes that report metrics.";
        "kafka.metrics.reporters" List = "", ANY, ReadOnly,
            "Java classes that report metrics, the older kind.";
    }
    Treatment::Refused(ACCESS) => {
        "super.users" String = none, ANY, ReadOnly,
            "Users whom no ACL holds back.";
        "allow.everyone.if.no.acl.found" Boolean = "false", ANY, ReadOnly,
            "Whether everyone may use what no ACL speaks of.";
        "authorizer.class.name" String = "", ANY, ReadOnly,
            "Java class that decides who may do what.";
        "principal.builder.class" Class =
            "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
            ANY, PerBroker,
            "Java class that makes a principal of a connection.";
    }
    Treatment::Refused(TLS) => {
        "security.providers" String = none, ANY, ReadOnly,
            "Java classes that provide security algorithms.";
        "ssl.keystore.type" String = "JKS", ANY, PerBroker,
            "Format of the key store.";
        "ssl.keystore.location" String = none, ANY, PerBroker,
            "Path of the key store.";
        "ssl.keystore.password" Password = none, ANY, PerBroker,
            "Password of the key store.";
        "ssl.keystore.key" Password = none, ANY, PerBroker,
            "Private key, as PEM text.";
        "ssl.keystore.certificate.chain" Password = none, ANY, PerBroker,
            "Certificate chain, as PEM text.";
        "ssl.key.password" Password = none, ANY, PerBroker,
            "Password of the private key.";
        "ssl.keymanager.algorithm" String = "SunX509", ANY, PerBroker,
            "Java's key manager algorithm.";
        "ssl.truststore.type" String = "JKS", ANY, PerBroker,
            "Format of the trust store.";
        "ssl.truststore.location" String = none, ANY, PerBroker,
            "Path of the trust store.";
        "ssl.truststore.password" Password = none, ANY, PerBroker,
            "Password of the trust store.";
        "ssl.truststore.certificates" Password = none, ANY, PerBroker,
            "Trusted certificates, as PEM text.";
        "ssl.trustmanager.algorithm" String = "PKIX", ANY, PerBroker,
            "Java's trust manager algorithm.";
        "ssl.protocol" String = "TLSv1.3", ANY, PerBroker,
            "TLS version to start with.";
        "ssl.provider" String = none, ANY, PerBroker,
            "Java's TLS provider.";
        "ssl.enabled.protocols" List = "TLSv1.2,TLSv1.3", ANY, PerBroker,
            "TLS versions that are on.";
        "ssl.cipher.suites" List = "", ANY, PerBroker,
            "TLS cipher suites that are on.";
        "ssl.client.auth" String =
            "none", Range::OneOf(&["required", "requested", "none"]), PerBroker,
            "Whether clients must show a certificate.";
        "ssl.endpoint.identification.algorithm" String = "https", ANY, PerBroker,
            "How a server's name is checked against its certificate.";
        "ssl.secure.random.implementation" String = none, ANY, PerBroker,
            "Java's source of randomness for TLS.";
        "ssl.engine.factory.class" Class = none, ANY, PerBroker,
            "Java class that makes TLS engines.";
        "ssl.principal.mapping.rules" String = "DEFAULT", ANY, ReadOnly,
            "How a certificate's name becomes a user name.";
        "ssl.allow.dn.changes" Boolean = "false", ANY, ReadOnly,
            "Whether a reloaded certificate may have another name.";
        "ssl.allow.san.changes" Boolean = "false", ANY, ReadOnly,
            "Whether a reloaded certificate may have other alternative names.";
    }
    Treatment::Refused(SASL) => {
        "sasl.enabled.mechanisms" List = "GSSAPI", ANY, PerBroker,
            "SASL mechanisms that are on.";
        "sasl.mechanism.inter.broker.protocol" String = "GSSAPI", ANY, PerBroker,
            "SASL mechanism between brokers.";
        "sasl.mechanism.controller.protocol" String = "GSSAPI", ANY, ReadOnly,
            "SASL mechanism with controllers.";
        "sasl.jaas.config" Password = none, ANY, PerBroker,
            "Login of a SASL mechanism, in JAAS form.";
        "sasl.client.callback.handler.class" Class = none, ANY, ReadOnly,
            "Java class of a SASL client.";
        "sasl.server.callback.handler.class" Class = none, ANY, ReadOnly,
            "Java class of a SASL server.";
        "sasl.login.callback.handler.class" Class = none, ANY, ReadOnly,
            "Java class of a SASL login.";
        "sasl.login.class" Class = none, ANY, ReadOnly,
            "Java class that logs in.";
        "sasl.server.max.receive.size" Int = "524288", ANY, ReadOnly,
            "Largest SASL message that is read, in bytes.";
        "connections.max.reauth.ms" Long = "0", ANY, ReadOnly,
            "Time after which a SASL connection must authenticate again; 0 never.";
        "sasl.kerberos.service.name" String = none, ANY, PerBroker,
            "Kerberos principal of the brokers.";
        "sasl.kerberos.kinit.cmd" String = "/usr/bin/kinit", ANY, PerBroker,
            "Path of kinit.";
        "sasl.kerberos.principal.to.local.rules" List = "DEFAULT", ANY, PerBroker,
            "How a Kerberos name becomes a user name.";
        "sasl.login.refresh.window.factor" Double = "0.8", ANY, PerBroker,
            "Share of a token's life after which it is refreshed.";
        "sasl.login.refresh.window.jitter" Double = "0.05", ANY, PerBroker,
            "Random part of the share of a token's life after which it is refreshed.";
        "sasl.login.refresh.min.period.seconds" Short = "60", ANY, PerBroker,
            "Shortest time between two refreshes of a token.";
        "sasl.login.refresh.buffer.seconds" Short = "300", ANY, PerBroker,
            "Time before a token's end by which it is refreshed.";
        "sasl.login.connect.timeout.ms" Int = none, ANY, ReadOnly,
            "How long a connection to the identity provider may take to be made.";
        "sasl.login.read.timeout.ms" Int = none, ANY, ReadOnly,
            "How long an answer of the identity provider may take.";
        "sasl.login.retry.backoff.ms" Long = "100", ANY, ReadOnly,
            "Pause before a login is tried again.";
        "sasl.login.retry.backoff.max.ms" Long = "10000", ANY, ReadOnly,
            "Longest pause before a login is tried again.";
        "sasl.oauthbearer.assertion.algorithm" String =
            "RS256", Range::OneOfIgnoringCase(&["ES256", "RS256"]), ReadOnly,
            "Algorithm that signs a client assertion.";
        "sasl.oauthbearer.assertion.claim.aud" String = none, ANY, ReadOnly,
            "Audience of a client assertion.";
        "sasl.oauthbearer.assertion.claim.exp.seconds" Int = "300", between(0, 86_400), ReadOnly,
            "Life of a client assertion.";
        "sasl.oauthbearer.assertion.claim.iss" String = none, ANY, ReadOnly,
            "Issuer of a client assertion.";
        "sasl.oauthbearer.assertion.claim.jti.include" Boolean = "false", ANY, ReadOnly,
            "Whether a client assertion has an id.";
        "sasl.oauthbearer.assertion.claim.nbf.seconds" Int = "60", between(0, 3600), ReadOnly,
            "How long before now a client assertion becomes valid.";
        "sasl.oauthbearer.assertion.claim.sub" String = none, ANY, ReadOnly,
            "Subject of a client assertion.";
        "sasl.oauthbearer.assertion.file" String = none, ANY, ReadOnly,
            "File with a ready client assertion.";
        "sasl.oauthbearer.assertion.private.key.file" String = none, ANY, ReadOnly,
            "File with the key that signs client assertions.";
        "sasl.oauthbearer.assertion.private.key.passphrase" Password = none, ANY, ReadOnly,
            "Passphrase of the key that signs client assertions.";
        "sasl.oauthbearer.assertion.template.file" String = none, ANY, ReadOnly,
            "File with a template of client assertions.";
        "sasl.oauthbearer.client.credentials.client.id" String = none, ANY, ReadOnly,
            "Client id for the identity provider.";
        "sasl.oauthbearer.client.credentials.client.secret" Password = none, ANY, ReadOnly,
            "Client secret for the identity provider.";
        "sasl.oauthbearer.clock.skew.seconds" Int = "30", ANY, ReadOnly,
            "By how much clocks may differ.";
        "sasl.oauthbearer.expected.audience" List = "", ANY, ReadOnly,
            "Audiences a token may name.";
        "sasl.oauthbearer.expected.issuer" String = none, ANY, ReadOnly,
            "Issuer a token must name.";
        "sasl.oauthbearer.jwks.endpoint.url" String = none, ANY, ReadOnly,
            "Where the identity provider's keys are.";
        "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long = "3600000", ANY, ReadOnly,
            "How often the identity provider's keys are fetched.";
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long = "100", ANY, ReadOnly,
            "Pause before the identity provider's keys are fetched again after a failure.";
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long = "10000", ANY, ReadOnly,
            "Longest pause before the identity provider's keys are fetched again.";
        "sasl.oauthbearer.jwt.retriever.class" Class =
            "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever", ANY, ReadOnly,
            "Java class that gets tokens.";
        "sasl.oauthbearer.jwt.validator.class" Class =
            "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator", ANY, ReadOnly,
            "Java class that checks tokens.";
        "sasl.oauthbearer.scope" String = none, ANY, ReadOnly,
            "Scope to ask the identity provider for.";
        "sasl.oauthbearer.scope.claim.name" String = "scope", ANY, ReadOnly,
            "Claim of a token that holds the scope.";
        "sasl.oauthbearer.sub.claim.name" String = "sub", ANY, ReadOnly,
            "Claim of a token that holds the subject.";
        "sasl.oauthbearer.token.endpoint.url" String = none, ANY, ReadOnly,
            "Where the identity provider gives out tokens.";
    }
    Treatment::Refused(TOKENS) => {
        "delegation.token.secret.key" Password = none, ANY, ReadOnly,
            "Secret that signs delegation tokens.";
    }
    Treatment::Refused(TIERED) => {
        "remote.log.storage.system.enable" Boolean = "false", ANY, ReadOnly,
            "Whether old segments go to remote storage.";
    }
}

//! What the numbers in an ACL's record mean (reference section 6): Kafka's enums, without their
//! "unknown" (0) and "any" (1), which no ACL has.

macro_rules! numbered {
    ($( $(#[$about:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $number:literal, )+ } )+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $( $(#[$doc])* $variant, )+
        }

        impl $name {
            /// Kafka's number.
            pub const fn number(self) -> i8 {
                match self {
                    $( Self::$variant => $number, )+
                }
            }

            /// What has Kafka's number, if anything has.
            pub const fn from_number(number: i8) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }
    )+ };
}

numbered! {
    /// What is protected.
    AclResource {
        /// A topic.
        Topic = 2,
        /// A group.
        Group = 3,
        /// The cluster, named `kafka-cluster`.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token.
        DelegationToken = 6,
        /// A user, as owner of tokens (KIP-373).
        User = 7,
    }

    /// How a resource's name matches.
    AclPattern {
        /// As it is; `*` is every name.
        Literal = 3,
        /// As a prefix (KIP-290).
        Prefixed = 4,
    }

    /// What is done.
    AclOperation {
        /// Every operation.
        All = 2,
        /// READ.
        Read = 3,
        /// WRITE.
        Write = 4,
        /// CREATE.
        Create = 5,
        /// DELETE.
        Delete = 6,
        /// ALTER.
        Alter = 7,
        /// DESCRIBE.
        Describe = 8,
        /// `CLUSTER_ACTION`: what brokers ask of each other.
        ClusterAction = 9,
        /// `DESCRIBE_CONFIGS`.
        DescribeConfigs = 10,
        /// `ALTER_CONFIGS`.
        AlterConfigs = 11,
        /// `IDEMPOTENT_WRITE`.
        IdempotentWrite = 12,
        /// `CREATE_TOKENS` (KIP-373).
        CreateTokens = 13,
        /// `DESCRIBE_TOKENS` (KIP-373).
        DescribeTokens = 14,
        /// `TWO_PHASE_COMMIT` (KIP-939).
        TwoPhaseCommit = 15,
    }

    /// Whether it may be done.
    AclPermission {
        /// It may not, whatever else allows it.
        Deny = 2,
        /// It may.
        Allow = 3,
    }
}

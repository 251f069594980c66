use super::*;
use base::{CredentialId, TokenId};
use chain::payload::identity::{
    CredentialAdded, CredentialBody, CredentialRevoked, IdentityCreated, IdentityUpdated, PasskeyOrigin,
};

fn person(core: &IdentityCore, number: u8) -> IdentityCreated {
    let path = KeyPath::parse(&format!("/orbital/users/p{number}")).unwrap();
    IdentityCreated {
        identity_id: IdentityId::of_key(&key_of(&path)),
        name: format!("Person{number}"),
        identity_type: IdentityType::User,
        parent: Some(id_of(core, "admin")),
        public_key: key_of(&path),
        key_path: path,
    }
}

/// People come, get credentials and tokens, log in, and lose them again.
fn proposal(core: &IdentityCore, number: u8) -> Proposal {
    let created = person(core, number / 8);
    let identity = created.identity_id;
    let (credential, token) = (CredentialId([number / 8; 16]), TokenId([number; 16]));
    let expires_at = AxiomTime(NOW.0 + u64::from(number) + 5);
    let updated = |change| Proposal::Updated(IdentityUpdated { identity, change });
    match number % 8 {
        0 => Proposal::Created(created),
        1 => {
            let origin = PasskeyOrigin { webauthn_id: vec![number; 20], backup_eligible: false };
            let body = CredentialBody::Passkey {
                public_key: vec![1; 70],
                aaguid: [2; 16],
                sign_count: 3,
                origin: Some(origin),
            };
            let name = String::new();
            Proposal::CredentialAdded(CredentialAdded { identity, credential, name, body, by: identity })
        }
        2 | 3 => updated(IdentityChange::TokenIssued { token, channel: CHANNEL.to_owned(), expires_at }),
        4 => {
            let (channel, sign_count) = (CHANNEL.to_owned(), Some(9));
            updated(IdentityChange::Authenticated { credential, token, channel, expires_at, sign_count })
        }
        5 => updated(IdentityChange::TokenRevoked { token: TokenId([number - 2; 16]), by: identity }),
        6 if number > 12 => {
            let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
            updated(IdentityChange::Status { old, new, by: identity, reason: String::new() })
        }
        6 => {
            let reason = String::new();
            Proposal::CredentialRevoked(CredentialRevoked { identity, credential, by: identity, reason })
        }
        _ => updated(IdentityChange::TokenRevoked { token, by: identity }),
    }
}

#[test]
fn a_registry_that_was_written_down_anywhere_goes_on_to_the_same_bytes() {
    let step = |core: &mut IdentityCore, number: u8| {
        let proposal = proposal(core, number);
        fold(core, 1 + u64::from(number), AxiomTime(NOW.0 + u64::from(number)), &proposal);
    };
    let mut whole = core();
    (0..40).for_each(|number| step(&mut whole, number));
    for cut in 0..=40 {
        let mut begun = core();
        (0..cut).for_each(|number| step(&mut begun, number));
        let mut resumed = IdentityCore::new();
        resumed.restore(&begun.save()).unwrap();
        assert_eq!(resumed.registry(), begun.registry(), "cut at {cut}");
        (cut..40).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
    }
    assert_eq!((whole.registry().credentials().len(), whole.registry().find("person4").is_some()), (5, true));
    let hash = Hash::of(&whole.save()).to_string();
    assert_eq!(
        hash, "blake3:c8fab6875fe94fe6050183ad7623167f1af8908eb3752f1baefc946c8ff21c44",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.registry().tokens() > 0 && whole.registry().ignored() > 0);
}

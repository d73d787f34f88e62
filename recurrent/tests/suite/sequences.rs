//! Runs the example `sequences` on less data.

#[allow(dead_code)]
#[path = "../../examples/sequences.rs"]
mod example;

use recurrent::Device;

#[test]
fn the_tutorial_reaches_its_stated_accuracy() {
    let folder = std::env::temp_dir().join(format!("sequences-test-{}", std::process::id()));
    let train = |epochs| example::train(&Device::cpu(), &folder, 600, 32, epochs, 1);
    // Without training, the accuracy is below the stated one, which is an error.
    let untrained = train(1).unwrap_err().to_string();
    assert!(untrained.contains("below the stated 0.99"), "{untrained}");
    let accuracy = train(12);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(accuracy.unwrap() >= example::STATED_ACCURACY);
}

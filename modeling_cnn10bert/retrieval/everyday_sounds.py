"""Descriptions of common sounds, in nouns and verbs that captions of Clotho and AudioCaps use."""

EVERYDAY_SOUNDS = (
    "a dog barks", "a cat meows", "birds sing", "a rooster crows", "insects chirp", "frogs croak", "a horse trots",
    "a cow moos", "sheep bleat", "bees buzz", "a man speaks", "a woman speaks", "children play and shout",
    "a crowd talks", "people laugh", "a baby cries", "someone coughs", "someone snores", "people applaud",
    "someone whistles", "a choir sings", "footsteps on a hard floor", "someone walks on gravel", "someone types",
    "someone knocks on a door", "a door creaks", "a door is shut", "keys jingle", "dishes clatter", "glass breaks",
    "someone saws wood", "someone hammers", "a drill whirs", "a vacuum cleaner hums", "a washing machine runs",
    "a clock ticks", "an alarm beeps", "a telephone rings", "church bells ring", "a siren wails", "a car passes by",
    "an engine idles", "an engine revs up", "a motorcycle drives off", "traffic on a busy road", "a train passes",
    "a train whistle blows", "an airplane flies over", "a helicopter hovers", "a boat's motor runs", "rain falls",
    "thunder rolls", "wind blows", "waves break on the shore", "a stream flows", "water drips", "water is poured",
    "a toilet is flushed", "water boils", "a fire crackles", "fireworks explode", "a gun is fired", "music plays",
    "a guitar is strummed", "someone plays the piano", "drums are played", "machines run in a factory", "a hum",
    "static noise", "silence",
)  # fmt: skip

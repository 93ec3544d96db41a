"""Sentences nano has no answer to; it replies to each with the fallback.

Some stand close to the domain on purpose ("what is five times six"), most are far from it.
"""

from __future__ import annotations

_TRAIN = """
What is the weather like today?
Will it rain tomorrow?
Turn on the kitchen light.
Turn off the lights in the bedroom.
Play some music for me.
Play my favorite song again.
Set a timer for twenty minutes.
Wake me up at half past six.
Call my mother, please.
Send a message to my brother.
What is on television tonight?
Who won the football game yesterday?
How do I bake a chocolate cake?
How long should I boil an egg?
Give me a recipe for apple pie.
Where is the nearest train station?
How far is it to the airport?
Book a table for two at an Italian restaurant.
Order a large pizza with extra cheese.
What time does the library open?
How much does this shirt cost?
Is there a pharmacy around here?
Tell me a funny joke.
Tell me a story about a dragon.
Sing me a lullaby.
Who wrote this book?
Who is the president of the club?
Who invented the telephone?
When was the great wall built?
How old is the universe?
How tall is the highest mountain on earth?
How deep is the ocean?
How fast can a cheetah run?
Why is the sea salty?
Why do birds fly south in winter?
Why do we dream at night?
What is the meaning of life?
What is the speed of light?
What is the square root of nine?
What is five times six?
Multiply seven by eight.
Divide ten by two.
What is half of twelve?
What is twenty percent of fifty?
How many minutes are in an hour?
How many people live in London?
How many stars are in the sky?
How many strings does a guitar have?
How many wheels does a truck have?
How many days are in a year?
What day is it today?
What is the date tomorrow?
What month is your birthday?
What time is it now?
Which year did the war end?
What color are your eyes?
What color should I paint my room?
What is your favorite color?
What is your favorite movie?
What is the largest city in the world?
What language do they speak in Brazil?
What is the longest river in Africa?
What is the population of Canada?
Which country has the best food?
Which planet is closest to the sun?
Which animal is the biggest of all?
What do lions eat?
Where do penguins live?
How long does an elephant live?
Do cats like water?
Can dogs see colors?
Is a tomato a fruit?
Are you hungry?
Do you like ice cream?
Do you have any friends?
Do you love me?
Can you drive a car?
Can you dance?
Can you play chess with me?
Can you keep a secret?
How old are you?
Who made you?
Where were you born?
What did you do last summer?
What are you thinking about?
I am feeling tired today.
I had a terrible day at work.
I would like a cup of coffee.
I lost my keys this morning.
I am going to the beach next week.
My sister is getting married in spring.
My computer is very slow.
My phone battery is almost dead.
The cat is sleeping on the sofa.
The children are playing in the garden.
The train was late again this morning.
The coffee is too strong for me.
There is a spider in the bathroom.
We are having fish for dinner.
She bought a new pair of shoes.
He plays the piano every evening.
They moved to a bigger house last year.
It was a beautiful sunny afternoon.
Let us go for a walk in the park.
Please close the window.
Please open the front door.
Remind me to buy milk.
Add butter to my shopping list.
Cancel my meeting this afternoon.
Read me the news.
Read my emails, please.
Translate this sentence into French.
How do you say friend in Spanish?
Spell the word banana.
Define the word freedom.
Search for cheap flights to Berlin.
Show me pictures of kittens.
Take a photo of us.
Turn the volume up.
Make it a little warmer in here.
Stop the music.
Go to the next song.
Start the washing machine.
Where did I park my car?
Where can I buy fresh bread?
What should I wear today?
What should I cook for dinner?
What is good for a headache?
How can I sleep better?
How do I tie a tie?
How do I get to the museum?
How does a computer work?
How do airplanes stay in the air?
When does the next bus leave?
When is the next full moon?
When do the shops close on Saturday?
Is it going to snow this weekend?
Is the bank open on Sunday?
Is it safe to swim in the lake?
Did you hear that noise?
Have you seen my glasses?
Could you speak a little slower?
Could you repeat that?
Would you like to hear a secret?
I do not know what to say.
That was not what I asked.
This is a very long and boring movie.
Nobody told me about the party.
Everything will be fine in the end.
"""

_HELD_OUT = """
What will the weather be like on Friday?
Turn on the radio in the kitchen.
Play some quiet piano music.
Set an alarm for seven in the morning.
Send a picture to my sister.
How do I cook rice?
Where is the nearest bus stop?
Tell me a story about a brave princess.
Who painted this picture?
How tall is the tower?
Why is the moon so bright tonight?
What is six times seven?
How many people live on earth?
What is your favorite animal?
Which river is the longest in the world?
Where do bears sleep in winter?
Do you like pizza?
Can you cook dinner for me?
I would like a glass of water.
My brother lost his phone at the station.
The dog is sleeping under the table.
Please open the window a little.
Read me a poem.
When does the train leave?
We went to the beach last weekend.
"""


def _lines(block: str) -> tuple[str, ...]:
    return tuple(block.strip().splitlines())


OUT_OF_DOMAIN_TRAIN: tuple[str, ...] = _lines(_TRAIN)
OUT_OF_DOMAIN_HELD_OUT: tuple[str, ...] = _lines(_HELD_OUT)

"""Sentences written for the embedded corpus, by language. Gaps such as {place} are filled anew for every document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Prose(NamedTuple):
    """Sentences of one language with gaps, and what may fill each gap."""

    sentences: tuple[str, ...]
    gaps: Mapping[str, tuple[str, ...]]


PROSE: dict[str, Prose] = {
    "en": Prose(
        (
            "The ferry to {place} leaves at dawn, when the fog still lies over the {water}.",
            "Nobody in {place} can say who built the old {thing} behind the school.",
            "Every {season} the children paint the benches along the {water} in new colours.",
            "A baker from {place} sells bread with {food}, and people come from far for it.",
            "When the {thing} fell silent, the neighbours met in the yard and talked until midnight.",
            "My grandmother kept {food} in a blue tin and gave us some after every walk.",
            "On the slope above the {water} grow pines that lean away from the wind.",
            "A letter that was found under the floor of the {thing} tells of a hard {season}.",
            "The teacher asked us to draw the road from {place} to the hills, and each of us drew another one.",
            "Since the bridge was closed, carts with {food} go around by the valley, which takes half a day.",
            "An engineer measured how far the {thing} had sunk and wrote the figure on its door.",
            "Fishermen mend their nets in {season}, while the boats stand on the shore of the {water}.",
            "If it rains for three days, the cellars of {place} fill and the pumps run through the night.",
            "She walked along the {water} with a lamp, counting the steps so that she could find the way back.",
        ),
        {
            "place": ("Harrow Bay", "Linden", "Upper Marsh", "Saltwick", "Greyford", "the northern quarter"),
            "water": ("harbour", "canal", "lake", "river", "millpond"),
            "thing": ("clock tower", "windmill", "lighthouse", "pump house", "chapel", "tram shed"),
            "season": ("spring", "summer", "autumn", "winter"),
            "food": ("walnuts", "dried plums", "honey", "caraway", "smoked cheese"),
        },
    ),
    "de": Prose(
        (
            "Am Morgen liegt der {wasser} still, und die Boote werden erst gegen acht Uhr losgemacht.",
            "In {ort} steht ein {ding}, das niemand mehr benutzt und das doch alle behalten wollen.",
            "Der Schuster hat seine Werkstatt neben dem {wasser}, weil dort das Licht am längsten bleibt.",
            "Im {zeit} kommen die Kraniche zurück und rasten auf den Wiesen hinter {ort}.",
            "Wer den Weg über die Hügel nimmt, sieht das {ding} schon von weitem und verläuft sich nicht.",
            "Meine Tante backt Kuchen mit {essen} und schreibt das Rezept nie auf.",
            "Nach dem Sturm lagen Ziegel auf der Straße, und die Nachbarn halfen einander beim Decken.",
            "Ein Ingenieur aus {ort} hat ausgerechnet, wie viel Wasser der {wasser} im {zeit} führt.",
            "Die Kinder bauen aus Brettern ein Floß und streiten, wer von ihnen steuern darf.",
            "Auf dem Markt gibt es {essen}, Wolle und Messer, die man am Stand schleifen lassen kann.",
            "Als das {ding} geöffnet wurde, fand man darin Briefe, die nie abgeschickt worden waren.",
            "Abends sitzen sie vor der Tür und erzählen, was der Tag gebracht hat.",
        ),
        {
            "ort": ("Birkenau", "Oberwald", "Steinfurt", "Lindhagen", "Altenbrück"),
            "wasser": ("Fluss", "Kanal", "See", "Mühlbach", "Hafen"),
            "ding": ("Wehr", "Zollhaus", "Lagerhaus", "Stellwerk", "Badehaus"),
            "zeit": ("Frühjahr", "Herbst", "März", "Oktober"),
            "essen": ("Pflaumen", "Mohn", "Rosinen", "Quark", "Honig"),
        },
    ),
    "fr": Prose(
        (
            "Le matin, la brume couvre {lieu} et les pêcheurs attendent sur le quai.",
            "Dans la cour de l'école pousse un tilleul que les enfants arrosent chaque {jour}.",
            "Le boulanger ajoute {mets} à sa pâte, et toute la rue le sait avant l'aube.",
            "Personne ne se souvient du jour où {chose} a cessé de tourner.",
            "Elle écrit des lettres à sa sœur, qui habite juste derrière {lieu}.",
            "Les ouvriers ont trouvé sous le plancher une carte où l'on voit {chose}.",
            "Quand il pleut, on entend l'eau descendre par les rigoles jusqu'à la place.",
            "Un vieux marin vend {mets} et raconte des voyages qu'il n'a peut-être jamais faits.",
            "Le {jour}, les musiciens répètent dans la salle au-dessus du marché.",
            "Pour aller au village, il faut suivre le sentier qui longe {lieu} et passer le pont.",
        ),
        {
            "lieu": ("la rivière", "le vieux port", "le canal", "la vallée", "le lac"),
            "chose": ("le moulin", "la grande horloge", "le phare", "la roue du lavoir"),
            "jour": ("lundi", "jeudi", "samedi", "dimanche"),
            "mets": ("des noix", "du miel", "des figues", "un peu de cannelle"),
        },
    ),
    "es": Prose(
        (
            "Por la mañana el pueblo huele a pan y las campanas suenan sobre {lugar}.",
            "El carpintero repara las puertas de {casa} antes de que lleguen las lluvias.",
            "Nadie sabe quién plantó los olivos que hay tras {lugar}.",
            "Mi abuelo guardaba {comida} en una caja de madera y la abría cada {dia}.",
            "Cuando baja el agua, los niños buscan piedras de colores en la orilla.",
            "La maestra les pidió que dibujaran {casa}, y cada uno la vio de otra manera.",
            "El tren pasa dos veces al día y se detiene muy poco tiempo en la estación.",
            "Una mujer vende {comida} en la plaza y conoce el nombre de todos.",
            "Si el viento viene del norte, los barcos se quedan amarrados hasta el {dia}.",
            "En el archivo hay un mapa antiguo en el que se ve el camino hacia {lugar}.",
        ),
        {
            "lugar": ("el río", "la colina", "el valle", "la bahía", "el molino viejo"),
            "casa": ("la escuela", "la torre", "la posada", "la ermita"),
            "dia": ("lunes", "jueves", "sábado", "domingo"),
            "comida": ("almendras", "higos secos", "queso", "miel de romero"),
        },
    ),
    "it": Prose(
        (
            "Al mattino il mercato si apre con il rumore delle casse e delle voci.",
            "Dietro {luogo} c'è un orto che due sorelle curano da molti anni.",
            "Il fabbro aggiusta i cancelli e non chiede mai più di quanto ha detto.",
            "Ogni {giorno} arriva un camion con {cibo} e si ferma davanti alla fontana.",
            "Nel cassetto della nonna c'era una chiave che non apre nessuna porta.",
            "I ragazzi passano oltre {luogo} in bicicletta e tornano quando fa buio.",
            "La pioggia ha portato via il sentiero, ma non il muro che lo sosteneva.",
            "Una signora prepara un dolce con {cibo} e lo lascia sul davanzale.",
        ),
        {
            "luogo": ("la stazione", "il ponte", "la chiesa", "il bosco", "la vecchia filanda"),
            "giorno": ("martedì", "venerdì", "sabato"),
            "cibo": ("le castagne", "le pere", "la ricotta", "i limoni"),
        },
    ),
    "ru": Prose(
        (
            "Утром над рекой стоит туман, и лодки выходят из гавани только после восьми часов.",
            "В {place} есть старая мельница, которую никто не хочет разбирать.",
            "Каждую {season} дети красят забор у школы в новый цвет.",
            "Бабушка хранила {food} в синей банке, и она давала нам по ложке, как это было при ней заведено.",
            "Инженер измерил, как глубоко осела башня, и он записал это число на двери.",
            "Когда закрыли мост, повозки стали ездить через долину, и это целых полдня.",
            "На рынке у реки продают {food}, шерсть и ножи, но их точат только за углом.",
            "Если дождь идёт три дня, в подвалах стоит вода, и всю ночь работают насосы.",
        ),
        {
            "place": ("деревне", "посёлке", "нижнем городе", "слободе"),
            "season": ("весну", "осень", "зиму"),
            "food": ("варенье", "тёртые яблоки", "мёд", "клюкву"),
        },
    ),
    "zh": Prose(
        (
            "清晨的雾还没有散，渡船已经从{place}出发了。",
            "老师让我们画一条通往山里的路，每个人画得都不一样。",
            "奶奶把{food}放在蓝色的铁盒里，散步回来才给我们吃。",
            "没有人知道{place}后面的那座水车是谁造的。",
            "连下三天雨，地窖里就会进水，水泵要整夜地开着。",
            "集市上有卖{food}的，也有磨刀和补伞的手艺人。",
            "桥关了以后，马车只能绕过山谷，要多走半天的路程。",
            "工程师量了塔身下沉的尺寸，把数字写在门上。",
        ),
        {"place": ("码头", "旧城", "学校", "湖边"), "food": ("核桃", "柿饼", "蜂蜜", "红枣")},
    ),
}
"""Documents are drawn from these."""

SINGLE: dict[str, str] = {
    "pt": "De manhã o cais ainda está vazio e só se ouve a água contra os barcos. O padeiro abre a porta e oferece "
    "um pão quente a quem passa. Mais tarde chegam os pescadores, que falam do vento e não da pesca. Uma "
    "menina conta as gaivotas e diz que são sempre mais do que ontem.",
    "nl": "In de ochtend hangt er mist boven het kanaal en de brug gaat pas om acht uur open. De bakker heeft dan "
    "al drie ovens brood gebakken. Op het plein staan kramen met kaas en wol, en een man die messen slijpt. "
    "Wie met de boot komt, moet wachten tot het water hoog genoeg is.",
    "pl": "Rano nad rzeką leży mgła, a łodzie stoją przy brzegu. Piekarz otwiera sklep i wystawia kosze na ulicę. "
    "Dzieci idą do szkoły drogą, która prowadzi przez sad. Nikt nie pamięta, kto zbudował młyn, ale każdy "
    "wie, że jest on najstarszym domem we wsi.",
    "cs": "Ráno je nad řekou mlha a lodě zůstávají u břehu. Pekař otevře krám a vynese koše na ulici. Děti jdou do "
    "školy cestou, která vede přes sad. Nikdo neví, kdo postavil mlýn, ale každý ví, že je to nejstarší dům "
    "ve vsi.",
    "uk": "Уранці над річкою лежить туман, і човни стоять біля берега. Пекар відчиняє крамницю та виносить кошики "
    "на вулицю. Діти йдуть до школи дорогою, що веде через сад. Ніхто не знає, хто збудував млин, але кожна "
    "людина в селі його любить.",
    "el": "Το πρωί η ομίχλη σκεπάζει το λιμάνι και τα καΐκια περιμένουν. Ο φούρναρης ανοίγει την πόρτα του και η "
    "μυρωδιά του ψωμιού γεμίζει τον δρόμο. Τα παιδιά μετρούν τους γλάρους, που κάθε μέρα είναι περισσότεροι.",
    "fi": "Aamulla järven yllä on sumua, ja veneet odottavat rannassa. Leipuri avaa ovensa, kun koulun kello on "
    "soinut. Kukaan ei muista, kuka myllyn rakensi, mutta se on kylän vanhin talo. Illalla vanhukset istuvat "
    "sen edessä ja kertovat, mitä he ovat nähneet.",
    "tr": "Sabah limanın üzerinde sis var ve tekneler kıyıda bekliyor. Fırıncı kapısını açar, sokak ekmek kokusu "
    "ile dolar. Çocuklar okula giderken martıları sayar ve bu sayı her gün daha çok olur. Değirmeni kimin "
    "yaptığını bilen yok.",
    "vi": "Buổi sáng sương phủ trên sông và những chiếc thuyền vẫn đợi ở bến. Người thợ làm bánh mở cửa, mùi bánh "
    "mới lan khắp phố. Trẻ em đi học qua con đường trong vườn và đếm chim. Không ai nhớ người nào đã xây cối "
    "xay cũ, nhưng mọi người đều yêu nó.",
    "id": "Pada pagi hari kabut turun di atas sungai dan perahu menunggu di tepi. Tukang roti membuka tokonya, "
    "lalu seluruh jalan berbau harum. Anak-anak pergi ke sekolah melalui kebun dan menghitung burung. Tidak "
    "ada yang tahu siapa yang membangun kincir itu, tetapi semua orang ingin menjaganya.",
    "ja": "朝の港にはまだ霧がかかっていて、船は岸で待っています。パン屋が戸を開けると、通りに焼きたての香りが広がり"
    "ます。子どもたちは果樹園の道を歩いて学校へ行き、途中でかもめの数をかぞえます。古い水車をだれが作ったのか"
    "、村の人はもう覚えていません。それでも毎年秋になると、みんなで屋根を直します。",
    "ko": "아침이면 항구에 안개가 내려앉고 배들은 물가에서 기다립니다. 빵집 주인이 문을 열면 골목에 갓 구운 빵 "
    "냄새가 퍼집니다. 아이들은 과수원 길을 걸어 학교에 가면서 갈매기를 셉니다. 오래된 물레방아를 누가 "
    "지었는지 기억하는 사람은 없지만, 모두가 그것을 아낍니다.",
    "ar": "في الصباح يغطي الضباب الميناء وتنتظر القوارب على الشاطئ. يفتح الخباز بابه فتملأ رائحة الخبز الشارع. "
    "يذهب الأطفال إلى المدرسة من طريق البستان، وهم يعدون الطيور التي تحلق فوق الماء. لا يعرف أحد من بنى "
    "الطاحونة القديمة، لكن كل أهل القرية يحبونها.",
    "he": "בבוקר הערפל מכסה את הנמל והסירות ממתינות ליד החוף. האופה פותח את הדלת וריח הלחם ממלא את הרחוב. הילדים "
    "הולכים לבית הספר דרך הפרדס וסופרים את השחפים. איש אינו זוכר מי בנה את הטחנה הישנה, אבל כולם אוהבים אותה.",
    "hi": "सुबह नदी के ऊपर कोहरा है और नावें किनारे पर खड़ी हैं। नानबाई अपनी दुकान खोलता है और गली रोटी की महक से "
    "भर जाती है। बच्चे बगीचे के रास्ते से स्कूल जाते हैं और पक्षियों को गिनते हैं। किसी को याद नहीं कि "
    "पुरानी चक्की किस ने बनाई थी।",
    "th": "ยามเช้าหมอกลงเหนือแม่น้ำและเรือจอดรออยู่ริมฝั่ง คนทำขนมปังเปิดร้านแล้วกลิ่นหอมก็ลอยไปทั่วถนน เด็กๆ "
    "เดินไปโรงเรียนผ่านสวนผลไม้และนับนกที่บินผ่านไป ไม่มีใครจำได้ว่าใครสร้างกังหันน้ำเก่า แต่ทุกคนรักมัน",
    "sw": "Asubuhi ukungu umefunika mto na mashua zinangoja kando ya maji. Mwokaji anafungua duka lake, na harufu "
    "ya mkate inaenea katika mtaa wote. Watoto wanakwenda shule kwa njia ya bustani na kuhesabu ndege. Kila "
    "mtu wa kijiji anapenda kinu cha zamani, bila kujua nani alikijenga.",
}
"""One document each."""
